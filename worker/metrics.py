"""Metrics for Prometheus, read from the database at each scrape.

The database is the truth about every worker at once, so one process answers for all of them, and
none of them opens a port. Names follow the practice of Prometheus: base units, no rates.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from models.schedule_runs import ScheduleRun
from models.status import Status

_CHECK = "upkeep.check_invariants"


class Metrics(Collector):
    """What Keyturn knows about itself; a scrape fails where the database does not answer."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: to be registered must not need a database."""
        return ()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, of one look at the database."""
        found = self._status()
        yield _by("state", "keyturn_events", "Account events that wait.", found.events)
        yield _by("channel", "keyturn_messages", "Messages to be sent.", found.outbox)
        yield _by("state", "keyturn_rotations", "Rotations under way.", found.rotations)
        yield _one(
            "keyturn_rotations_blocked", "Rotations that need a person.", found.blocked_rotations
        )
        yield _one(
            "keyturn_rotations_uses_never_reported",
            "Rotations of a day or more of whose keys no use was reported since they began.",
            found.unreported_rotations,
        )
        yield _by(
            "state",
            "keyturn_operations",
            "Plans of bulk rotation that have not ended; a stopped one needs a person.",
            found.operations,
        )
        yield _one(
            "keyturn_accounts_unsettled",
            "Accounts whose keys' statuses are being brought up to date.",
            found.unsettled_accounts,
        )
        yield _one(
            "keyturn_keys_past_end", "Keys that have ended and do not say so.", found.keys_past_end
        )
        yield _by(
            "what",
            "keyturn_waiting_seconds",
            "How long the oldest has waited that could be dealt with now.",
            dict.fromkeys(("event", "message", "key"), 0.0) | dict(found.waiting_seconds),
        )
        yield _by(
            "source",
            "keyturn_source_silent_seconds",
            "How long a source has been silent, where that is longer than normal.",
            found.silent_sources,
        )
        yield from _jobs(found.runs)

    def text(self) -> bytes:
        """The metrics in Prometheus's text format."""
        return generate_latest(self._registry())

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[int]:
        """Answer `GET /metrics`; yields the port. Raises OSError where that cannot be had."""
        server, thread = start_http_server(port, host, self._registry())
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            if thread is not threading.current_thread():
                thread.join()

    def _registry(self) -> CollectorRegistry:
        registry = CollectorRegistry()
        registry.register(self)
        return registry


def _jobs(runs: Iterable[ScheduleRun]) -> Iterator[GaugeMetricFamily]:
    finished = {run.job: run.finished_at.timestamp() for run in runs if run.finished_at}
    failed = {run.job: float(run.error is not None) for run in runs if run.finished_at}
    broken = next((run.done for run in runs if run.job == _CHECK and run.finished_at), None)
    yield _by("job", "keyturn_job_finished_timestamp_seconds", "When a job last ended.", finished)
    yield _by("job", "keyturn_job_failed", "1 where a job's last run failed.", failed)
    if broken is not None:  # unknown until the first check, which is not the same as none
        yield _one("keyturn_promises_broken", "Promises that the last check found broken.", broken)


def _one(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=value)


def _by(label: str, name: str, meaning: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for key, value in sorted(values.items()):
        family.add_metric([key], value)
    return family
