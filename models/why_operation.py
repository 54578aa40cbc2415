"""How far a plan of bulk rotation is, what it waits for, and what a person can do: in sentences."""

from .operation_rows import Operation
from .why_rotation import at

WAITS = {
    "retries": "keys that failed, or whose worker has died, are tried again",
    "hand_overs": "sinks are still taking the new keys of this wave",
}
"""Why the present wave does not go on just now, by `waits_for`."""


def goes_on(plan: Operation) -> bool:
    """Whether it does what it was made for: it is on its way, or through."""
    return plan.state in ("running", "completed")


def standing(plan: Operation) -> list[str]:
    """How far it is, and why it is not on its way."""
    by = f"planned by {plan.planned_by} at {at(plan.planned_at)}"
    if plan.applied_at is not None:
        by += f", applied by {plan.applied_by} at {at(plan.applied_at)}"
    said = [
        f"Plan {plan.id} of {plan.keys} keys is {plan.state}; {by}.",
        f"It is in wave {plan.wave} of {plan.waves}: {plan.issued} keys were rotated,"
        f" {plan.skipped} skipped, {plan.failed} failed, {plan.waiting} wait.",
    ]
    if plan.not_handed_over:
        said.append(f"{plan.not_handed_over} new keys did not get to where a sink was to put them.")
    if plan.state == "stopped":
        said.append(f"It stopped by itself, as too many keys of a wave failed: {plan.stop_reason}.")
    elif plan.stop_reason is not None:
        said.append(f"It was cancelled at {at(plan.ended_at)}: {plan.stop_reason}.")
    return said


def to_come(plan: Operation) -> list[str]:
    """What will happen by itself, and when."""
    match plan.state:
        case "planned":
            return [f"Nothing, until it is applied; that is possible until {at(plan.plan_until)}."]
        case "running":
            wait = WAITS.get(plan.waits_for or "")
            return [f"It waits: {wait}."] if wait else ["Workers rotate its keys, wave by wave."]
        case "paused" | "stopped":
            return ["Nothing more is begun. Rotations that were begun go on."]
    return []


def mends(plan: Operation) -> list[str]:
    """What a person can do about it."""
    cancel = f"`keyturn rotations cancel {plan.id}` ends it; rotations under way go on."
    match plan.state:
        case "planned":
            return [f"`keyturn rotations apply {plan.id}` rotates its keys."]
        case "running":
            return [f"`keyturn rotations pause {plan.id}` begins no more keys.", cancel]
        case "paused":
            return [f"`keyturn rotations resume {plan.id}` goes on.", cancel]
        case "stopped":
            return [
                f"`keyturn rotations show {plan.id}` names the keys that failed, and why.",
                f"`keyturn rotations resume {plan.id}` tries again what could not be issued, and"
                " goes on.",
                cancel,
            ]
        case "expired":
            return ["Plan again: `keyturn rotations plan`."]
    return []
