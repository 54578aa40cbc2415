"""The states of a rotation, and everything that leads from one to another (rule 5.1).

This is the one place where that is said: steps are taken along these transitions only, a trigger of
the database refuses every other pair of states, and the picture in docs/rotation.md is drawn from
here.
"""

from dataclasses import dataclass

from .rotation_rules import (
    Block,
    Cancel,
    Complete,
    Confirm,
    Pause,
    Resume,
    Retire,
    Transition,
    Undo,
    Wait,
    Warn,
)


@dataclass(frozen=True)
class Edge:
    """From one state to another by a step, or into being (`before` None), and what leads there."""

    before: str | None
    step: type[Transition] | None
    after: str
    causes: tuple[str, ...]


class NoSuchTransition(Exception):
    """A step would lead where no transition does: a fault of this code, nothing was changed."""


TRANSITIONS = (
    Edge(None, None, "issued", ("a key is rotated",)),
    Edge("issued", Confirm, "draining", ("first use of the new key", "an operator confirms")),
    Edge(
        "issued",
        Cancel,
        "cancelled",
        (
            "not fetched in time",
            "an operator cancels or reissues",
            "the account was disabled",
            "a key was deleted or leaked",
        ),
    ),
    Edge("issued", Complete, "completed", ("the old key ended",)),
    Edge("draining", Retire, "retired", ("old key quiet, its time over", "an operator confirms")),
    Edge("draining", Complete, "completed", ("the old key ended or leaked",)),
    Edge("draining", Cancel, "cancelled", ("the new key was deleted or leaked",)),
    Edge("retired", Undo, "draining", ("an operator undoes it",)),
    Edge(
        "retired",
        Complete,
        "completed",
        ("after 7 days", "the new key is rotated", "the old key was deleted"),
    ),
)

PAIRS = frozenset((edge.before, edge.after) for edge in TRANSITIONS)
STAYING = (Wait, Warn, Block, Pause, Resume)
"""Steps that leave the state as it is."""

_LEADS = {(edge.before, edge.step): edge.after for edge in TRANSITIONS}


def after(before: str, step: Transition) -> str:
    """The state to which a step leads from another; raises NoSuchTransition where none does."""
    if isinstance(step, STAYING):
        return before
    try:
        return _LEADS[before, type(step)]
    except KeyError:
        name = type(step).__name__
        raise NoSuchTransition(f"no transition leads from {before} by {name}") from None
