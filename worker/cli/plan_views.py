"""How a plan of bulk rotation is shown: before it is applied, on its way, and in the end."""

from datetime import timedelta
from typing import Any

from models.durations import format_duration
from models.operation_selection import REASONS
from models.operations import Operation, Unrotated
from models.operator import Operator
from models.why_operation import WAITS
from worker.cli import output, times
from worker.cli.asking import agreed

_OPTIONS = ("account", "role", "older_than", "expiring")
NAMED = 20
"""Keys that were not rotated which are named to people; --json names more."""


def show(client: Operator, plan: str, *, json: bool) -> None:
    """Print how a plan stands, and which keys it did not rotate."""
    tell(client, client.operations.find(plan), json=json)


def tell(client: Operator, plan: Operation, *more: str, json: bool) -> None:
    """Print a plan, and `more` for people."""
    unrotated = client.operations.unrotated(plan)
    parts: list[str | output.Table] = [*_facts(plan, client.policy.bulk_rate)]
    if unrotated:
        parts.append(_table(unrotated))
        rest = plan.skipped + plan.failed + plan.not_handed_over + sum(plan.left_out.values())
        if rest > NAMED:
            parts.append(f"... and {rest - NAMED} more.")
    output.answer(json, document(plan, unrotated), *parts, *more)


def cancel(
    client: Operator, plan: str, reason: str, *, yes: bool, dry_run: bool, json: bool
) -> None:
    """End a plan; asks before."""
    found = client.operations.find(plan)
    lines = [
        f"Cancel the plan {found.id} ({found.state}): {found.waiting} of its {found.keys} keys are"
        " not rotated.",
        f"{found.issued} rotations that it began go on.",
    ]
    would = {"action": "cancel", "plan": found}
    client.trying().operations.cancel(plan, reason)  # refused before it is asked about
    if agreed("Cancel it?", lines, would, yes=yes, dry_run=dry_run, json=json):
        ended = client.operations.cancel(plan, reason)
        output.answer(json, ended, f"{progress(ended)}.")


def document(plan: Operation, unrotated: list[Unrotated]) -> dict[str, Any]:
    """A plan for programs."""
    return {**output.plain(plan), "unrotated": output.plain(unrotated)}


def summary(plan: Operation, rate: float) -> list[str]:
    """What applying it would do, in lines."""
    return _facts(plan, rate)


def rows(plans: list[Operation]) -> output.Table:
    """Plans, one a row."""
    return output.Table(
        ("ID", "STATE", "KEYS", "DONE", "FAILED", "PLANNED", "SELECTION"),
        [
            (
                plan.id,
                plan.state,
                plan.keys,
                plan.done,
                plan.failed + plan.not_handed_over,
                times.ago(plan.planned_at),
                selection(plan),
            )
            for plan in plans
        ],
        empty="No plans.",
    )


def selection(plan: Operation) -> str:
    """The options by which its keys were chosen."""
    given = [(name, plan.selection[name]) for name in _OPTIONS if name in plan.selection]
    words = [f"--{name.replace('_', '-')} {_value(value)}" for name, value in given]
    return " ".join([*words, *(["--all"] if "everything" in plan.selection else [])])


def progress(plan: Operation) -> str:
    """How far it is, in one line."""
    share = plan.done / plan.keys if plan.keys else 1.0
    parts = [
        plan.state,
        f"wave {plan.wave} of {plan.waves}",
        f"{plan.done} of {plan.keys} keys ({share:.0%})",
        *([f"{plan.skipped} skipped"] if plan.skipped else []),
        *([f"{failing(plan)} failed"] if failing(plan) else []),
    ]
    left = seconds_left(plan)
    if plan.state == "running":
        parts.append(f"{plan.rate:.1f} a second")
        parts += [f"{times.length(timedelta(seconds=left))} left"] if left is not None else []
    why = plan.stop_reason or WAITS.get(plan.waits_for or "")
    return ", ".join(parts) + (f": {why}" if why else "")


def failing(plan: Operation) -> int:
    """Keys that failed, those whose hand-over did included."""
    return plan.failed + plan.not_handed_over


def seconds_left(plan: Operation) -> float | None:
    """How long it takes at its rate of late; None where nothing was done of late."""
    if plan.ended:
        return 0.0
    return plan.waiting / plan.rate if plan.rate else None


def _facts(plan: Operation, rate: float) -> list[str]:
    left_out = [f"{count} {REASONS.get(name, name)}" for name, count in plan.left_out.items()]
    hand_overs = [f"{count} by {name}" for name, count in plan.hand_overs.items()]
    pending = plan.state in ("planned", "expired")
    facts = output.facts(
        plan=plan.id,
        state=plan.state if pending else progress(plan),
        selection=selection(plan),
        planned=f"{output.shown(plan.planned_at)} by {plan.planned_by}",
        applied=f"{output.shown(plan.applied_at)} by {plan.applied_by}" if plan.applied_at else "",
        ended=plan.ended_at,
        keys=f"{plan.keys} of {plan.owners} owners, in {plan.waves} waves",
        used=f"{plan.used_24h} in the last 24 hours, {plan.used_7d} in the last 7 days",
        owners_told=f"{plan.owners}, by {plan.messages} messages",
        hand_overs=", ".join(hand_overs),
        left_out=", ".join(left_out),
        takes=f"{times.length(timedelta(seconds=plan.keys / rate))} at {rate:g} keys a second"
        if pending
        else "",
        apply_until=f"{output.shown(plan.plan_until)} ({times.left(plan.plan_until)})"
        if pending
        else "",
    )
    return [facts]


def _table(unrotated: list[Unrotated]) -> output.Table:
    rows = [
        (one.key_id, one.name, one.account, one.state, REASONS.get(one.reason, one.reason))
        for one in unrotated[:NAMED]
    ]
    return output.Table(("ID", "KEY", "ACCOUNT", "WHAT", "WHY"), rows)


def _value(value: object) -> str:
    if isinstance(value, float | int):
        return format_duration(timedelta(seconds=value))
    return str(value)
