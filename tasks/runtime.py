"""What a task is given, and the one shape that every task has."""

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from models import schedule_runs
from models.base import Database, Step, Tx
from models.keyring import Keyring
from models.messages import Channel
from models.policy import Policy
from models.sinks import Sink

from .clock import ClockGuard
from .running import noted

log = structlog.get_logger()

LONGEST_RUN = timedelta(seconds=60)
"""After this, or half a lease, a run ends between two batches and rings for the next."""


@dataclass(frozen=True)
class Runtime:
    """What the worker gives to a task."""

    database: Database
    policy: Policy
    keyring: Keyring
    channels: Mapping[str, Channel]
    schedule: Mapping[str, timedelta] = field(default_factory=dict)
    clock: ClockGuard = field(default_factory=ClockGuard)
    sinks: Mapping[str, Sink] = field(default_factory=dict)

    def batches(self, step: Callable[[Tx], Step], flow: str) -> int:
        """Repeat `step`, each time in a transaction of its own, as `until_finished` does."""
        return self.until_finished(lambda: self.database.run(step), flow)

    def until_finished(
        self, batch: Callable[[], Step], flow: str, *, longest: timedelta | None = None
    ) -> int:
        """Repeat a batch until it finds nothing more; returns how many things changed.

        A run that grows long rings for its flow and ends, so that it never outlives its lease.
        """
        most = min(longest or LONGEST_RUN, self.policy.lease / 2).total_seconds()
        started = time.monotonic()
        changed = 0
        while True:
            done = batch()
            changed += done.changed
            if done.finished:
                return changed
            if time.monotonic() - started > most:
                self.ring([flow])
                return changed

    def ring(self, flows: Iterable[str]) -> None:
        """Ask for flows to run now."""
        if self.database.on_commit and (names := set(flows)):
            self.database.on_commit(names)

    def alarm(self, name: str, **facts: object) -> None:
        """Tell a person: one structured line at level error, by which alerts are made."""
        log.error("alarm", alarm=name, **facts)


@dataclass(frozen=True)
class Flow:
    """A task by its name. An `exclusive` flow runs once at a time in the whole installation."""

    name: str
    work: Callable[[Runtime], int]
    exclusive: bool
    destructive: bool


_flows: dict[str, Flow] = {}


def flow(
    name: str, *, exclusive: bool = True, destructive: bool = False
) -> Callable[[Callable[[Runtime], int]], Callable[[Runtime], int]]:
    """Make a function a flow. It takes no arguments but the runtime, does what is due, and returns
    how many things it changed. A `destructive` one stands still while a clock is suspect."""

    def register(work: Callable[[Runtime], int]) -> Callable[[Runtime], int]:
        _flows[name] = Flow(name, work, exclusive, destructive)
        return work

    return register


def flows() -> Mapping[str, Flow]:
    """Every flow, by name."""
    return _flows


def run(flow: Flow, runtime: Runtime) -> int:
    """Run a flow once, under its lease, and write down how it went; one log event tells of it.

    Returns what it changed; 0 where another run holds the lease. What it raises is recorded and
    raised again: its rows are still due, so the schedule repeats it.
    """
    with noted(flow.name):  # its first and last words to the database included: these hang as well
        return _run(flow, runtime)


def _run(flow: Flow, runtime: Runtime) -> int:
    database, policy = runtime.database, runtime.policy
    fence = database.run(
        lambda tx: schedule_runs.begin(tx, flow.name, policy, exclusive=flow.exclusive)
    )
    if fence is None:
        log.debug("flow", flow=flow.name, outcome="already_running")
        return 0
    if flow.destructive and (suspect := runtime.clock.suspect(database)):
        runtime.alarm("clock_suspect", flow=flow.name, why=suspect)
        database.run(lambda tx: schedule_runs.finish(tx, flow.name, fence, done=0, error=suspect))
        return 0
    started = time.monotonic()
    try:
        changed = flow.work(runtime)
    except Exception as error:
        reason = f"{type(error).__name__}"
        with suppress(Exception):
            database.run(
                lambda tx: schedule_runs.finish(tx, flow.name, fence, done=0, error=reason)
            )
        log.error("flow", flow=flow.name, outcome="failed", error=reason)
        raise
    database.run(lambda tx: schedule_runs.finish(tx, flow.name, fence, done=changed))
    (log.info if changed else log.debug)(
        "flow",
        flow=flow.name,
        outcome="done",
        changed=changed,
        seconds=round(time.monotonic() - started, 3),
    )
    return changed
