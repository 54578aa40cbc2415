"""`keyturn status`: how things stand."""

from collections.abc import Mapping

from models.schedule_runs import ScheduleRun
from models.status import Status
from worker.cli import output, times
from worker.cli.output import Json
from worker.cli.session import operator


def status(json: Json = False) -> None:
    """Show what waits, what wants a look, and when each job last ran."""
    with operator() as client:
        found = client.status()
    rows = [(run.job, _when(run), run.done, run.error) for run in found.runs]
    table = output.Table(
        ("JOB", "LAST FINISHED", "CHANGED", "ERROR"), rows, empty="No job has run: start a worker."
    )
    output.answer(json, found, _facts(found), "", table)


def _facts(found: Status) -> str:
    return output.facts(
        events=_counts(found.events),
        messages_to_send=_counts(found.outbox),
        accounts_to_settle=found.unsettled_accounts,
        keys_past_their_end=found.keys_past_end,
        rotations=_counts(found.rotations),
        blocked_rotations=found.blocked_rotations,
        rotations_without_reported_uses=found.unreported_rotations,
        plans=_counts({state: count for state, count in found.operations.items() if count}),
        oldest_waits=_waits(found.waiting_seconds),
        silent_sources=_waits(found.silent_sources),
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def _waits(seconds: Mapping[str, float]) -> str:
    return ", ".join(f"{what} {round(past)} s" for what, past in sorted(seconds.items())) or "none"


def _when(run: ScheduleRun) -> str:
    return "not yet" if run.finished_at is None else times.ago(run.finished_at)
