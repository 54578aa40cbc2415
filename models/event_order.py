"""Which of an account's events counts: the pure rules of order (rules 2.4 to 2.6)."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from .accounts import RECYCLABLE, Link
from .events import ORDERED, RESTRICTIVE, Action

KIND = {
    Action.DISABLED: "disabled",
    Action.ENABLED: "disabled",
    Action.DELETED: "deleted",
    Action.COMPROMISED: "compromised",
    Action.KEY_LEAKED: "compromised",
}
"""The kind of hold that an action places or lifts: on an account, or on the key that leaked."""

CONFLICT = "conflict: another event with this id says something else"


@dataclass(frozen=True)
class Mark:
    """How far one source's ordered events have been applied to one account, and the outcome."""

    standing: bool = False
    at: datetime | None = None
    sequence: int | None = None
    event: int | None = None


@dataclass(frozen=True)
class Dated:
    """What an event's order depends on. `occurred_at` is the producer's time, if it gave one."""

    id: int
    action: Action
    occurred_at: datetime | None
    received_at: datetime
    sequence: int | None
    conflict: bool


@dataclass(frozen=True)
class Verdict:
    """What becomes of one event, and the mark after it."""

    state: Literal["done", "stale", "parked"]
    mark: Mark
    reason: str | None = None


def judge(event: Dated, mark: Mark, link: Link, tolerance: timedelta) -> Verdict:
    """Decide one event against the mark of its (source, account, kind).

    Where an event is in doubt, one that takes access away is applied and then parked for a person
    to look at; one that gives access back is only parked.
    """
    restrictive = event.action in RESTRICTIVE
    at = event.occurred_at or event.received_at
    if at > event.received_at + tolerance:
        if not restrictive:
            return Verdict("parked", mark, "from_the_future: check the producer's clock")
        at = event.received_at
    order = _order(event, at, mark, tolerance) if event.action in ORDERED else "newer"
    if order == "older" and event.conflict and restrictive:
        return Verdict("parked", replace(mark, standing=True), CONFLICT)
    if order == "older":
        return Verdict("stale", mark, "a newer event of this source was applied before")
    doubt = _doubt(event, at, order, link)
    if doubt and not restrictive:
        return Verdict("parked", mark, doubt)
    applied = Mark(restrictive, at, event.sequence, event.id)
    if order == "same" and mark.sequence is not None:
        applied = replace(applied, sequence=mark.sequence)
    return Verdict("parked" if doubt else "done", applied, doubt)


def _doubt(event: Dated, at: datetime, order: str, link: Link) -> str | None:
    if event.conflict:
        return CONFLICT
    if order == "restarted":
        return "sequence_restarted: the producer seems to count anew"
    if link.format in RECYCLABLE and at < link.linked_at:
        return f"older_than_link: the {link.format} may have named somebody else then"
    return None


def _order(event: Dated, at: datetime, mark: Mark, tolerance: timedelta) -> str:
    """`newer`, `same`, `restarted` or `older`, as seen from the mark."""
    if mark.at is None:
        return "newer"
    if event.sequence is not None and mark.sequence is not None:
        if event.sequence > mark.sequence:
            return "newer"
        if event.sequence < mark.sequence:
            return "restarted" if at > mark.at + tolerance else "older"
    elif at > mark.at:
        return "newer"
    elif at < mark.at:
        return "older"
    elif event.occurred_at is None and event.id != mark.event:
        # No times to go by: as they came in. Replayed, an event ties with its own mark.
        return "newer" if mark.event is None or event.id > mark.event else "older"
    # A tie: disabled wins.
    return "same" if event.action is Action.DISABLED or not mark.standing else "older"
