"""Account events take effect: holds, stopped keys, and names that come to mean somebody else."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from . import accounts, event_holds, event_rows, holds, identity_changes, leaks
from .accounts import TENANT, Identity, Link, named_at
from .base import Database, Tx, is_server_trouble
from .event_order import CONFLICT
from .event_rows import COLUMNS, PARK_AFTER, Claimed, claim, claimed_of
from .events import Action
from .key_text import Peppers
from .policy import Policy

__all__ = [
    "COLUMNS",
    "PARK_AFTER",
    "Claimed",
    "apply",
    "apply_claimed",
    "apply_waiting",
    "claim",
    "claimed_of",
]


def apply_claimed(
    database: Database, claimed: Sequence[Claimed], policy: Policy, peppers: Peppers
) -> Counter[str]:
    """Apply claimed events in one transaction; where that fails, in halves, down to the one row.

    Returns how many are in each state now.

    A row that fails alone pays for it: it is tried again after a pause, and parked after
    PARK_AFTER attempts. What the server failed at is nobody's fault: the attempt is given back.
    """
    if not claimed:
        return Counter()
    try:
        return database.run(lambda tx: apply(tx, claimed, policy, peppers))
    except Exception as error:
        if is_server_trouble(error):
            database.run(lambda tx: event_rows.give_back(tx, claimed))
            raise
        if len(claimed) > 1:
            middle = len(claimed) // 2
            first = apply_claimed(database, claimed[:middle], policy, peppers)
            return first + apply_claimed(database, claimed[middle:], policy, peppers)
        reason = f"failed: {type(error).__name__}"
        return database.run(lambda tx: event_rows.charge(tx, claimed[0], reason))


def apply_waiting(tx: Tx, values: Sequence[str], policy: Policy) -> Counter[str]:
    """Apply what waited for an account that has just got one of these names.

    Part of the transaction that links the name, which holds the identity's advisory lock: the
    account is never seen without the holds that were waiting for it.
    """
    return apply(tx, event_rows.waiting(tx, values), policy)


def apply(
    tx: Tx, claimed: Sequence[Claimed], policy: Policy, peppers: Peppers | None = None
) -> Counter[str]:
    """Do what these events ask for, in order, and finish their rows.

    Changes of identity go first: every other event is about whoever had its name when it happened.
    `peppers` are needed where a report of a leaked key is among them.
    """
    if not claimed:
        return Counter()
    gathered, book = _gathered(tx, claimed)
    mine = event_rows.lock(tx, gathered)
    events = [one for one in gathered if one.id in mine]
    leaked = leaks.keys(tx, [one.key_digest for one in events if one.key_digest], peppers)
    named = [link for one in events for name in _names(one) for link in book.get(name, ())]
    holds.lock_tenants(tx, [link.account_id for link in named if link.format == TENANT])
    owners = {link.account_id for link in named if link.format != TENANT}
    holds.lock_accounts(tx, [*owners, *(key.account_id for key in leaked.values())])
    changes = identity_changes.apply(tx, list(filter(_is_change, events)), book, policy)
    others = [one for one in events if not _is_change(one)]
    links = _links(others, book)
    outcomes = event_holds.apply(tx, [one for one in others if one.id in links], links, policy)
    for one in others:
        if one.key_digest is not None:
            key = leaked.get(one.key_digest)
            outcomes.append(_apply_to_key(tx, one, key, policy))
        elif one.id not in links:
            outcomes.append(identity_changes.waits(one))
    if others:
        event_rows.finish(tx, outcomes)
    return Counter(outcome["state"] for outcome in (*changes, *outcomes))


def _apply_to_key(
    tx: Tx, one: Claimed, key: leaks.LeakedKey | None, policy: Policy
) -> dict[str, Any]:
    """Stop the key that leaked, before anything is said about the event (rules 2.4 and 2.7)."""
    if key is not None and not key.deleted:
        leaks.stop(tx, key, source=one.source, reason=one.cause, policy=policy)
    reason = "key_unknown: no key has this digest" if key is None else None
    return {
        "id": one.id,
        "state": "parked" if one.event.conflict else "done",
        "reason": CONFLICT if one.event.conflict else reason,
        "account_id": str(key.account_id) if key else None,
    }


def _is_change(one: Claimed) -> bool:
    return one.event.action is Action.IDENTITY_CHANGED


def _names(one: Claimed) -> tuple[Identity, ...]:
    names = tuple(name for name in one.names if (name[0] == TENANT) == one.of_tenant)
    return (*names, one.new_name) if one.new_name else names


def _gathered(
    tx: Tx, claimed: Sequence[Claimed]
) -> tuple[list[Claimed], dict[Identity, list[Link]]]:
    """These events, with those that wait for a name that one of them may give; and every link of
    their names.

    Names that miss are looked up again under their advisory locks, which account creation takes:
    either it sees the waiting event, or we see the account. Names that may change hands are locked
    just so.
    """
    events = {one.id: one for one in claimed}
    known = accounts.histories(tx, {name for one in claimed for name in _names(one)})
    locked: set[Identity] = set()
    looked: set[str] = set()
    while True:
        wanted = _to_lock(events.values(), known) - locked
        if wanted:
            accounts.lock_identities(tx, wanted)
            locked |= wanted
        values = {one.new_name[2] for one in events.values() if one.new_name} - looked
        if not values:
            break
        looked |= values
        events |= {one.id: one for one in event_rows.waiting(tx, values) if one.id not in events}
    found = sorted(events.values(), key=lambda one: one.id)
    if locked:
        known |= accounts.histories(tx, {name for one in found for name in _names(one)})
    return found, known


def _to_lock(
    events: Collection[Claimed], known: Mapping[Identity, Sequence[Link]]
) -> set[Identity]:
    return {
        name
        for one in events
        if _is_change(one) or _link(one, known) is None
        for name in _names(one)
    }


def _links(events: Iterable[Claimed], book: Mapping[Identity, Sequence[Link]]) -> dict[int, Link]:
    """The account of each event, by the first of its names that somebody had when it happened."""
    found = ((one.id, _link(one, book)) for one in events if one.key_digest is None)
    return {id: link for id, link in found if link is not None}


def _link(one: Claimed, book: Mapping[Identity, Sequence[Link]]) -> Link | None:
    names = (name for name in one.names if (name[0] == TENANT) == one.of_tenant)
    hits = (named_at(book.get(name, ()), one.at) for name in names)
    return next((hit for hit in hits if hit is not None), None)
