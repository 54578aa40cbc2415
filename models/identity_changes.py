"""An account's names change: one is taken from it, another may come in its place (rule 2.6).

Links keep the time from when and until when they hold, by the producer's clock where it says: so a
change that comes late finds the name as it was then, and what else comes late finds its account.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from . import event_rows
from .accounts import RECYCLABLE, Identity, Link, named_at
from .base import Tx
from .errors import Refused
from .event_order import CONFLICT
from .event_rows import TAKEN, TOLD, Claimed
from .identifiers import ISSUED, normalised
from .identity import new_id
from .policy import Policy

Outcome = dict[str, Any]
"""What became of an event: `id`, `state`, `reason`, `account_id`."""

UNLINKED = (
    "its mails still go to an address that no longer names it: `keyturn accounts email ACCOUNT NEW`"
)
"""What the alarm `address_unlinked` says."""

CONTRADICTED = (
    "contradicted: a change of a later time was applied to this account before; if that was about "
    "somebody else, who had got the name, mend both: `keyturn accounts identities` lists names"
)
"""Why a change parks that comes behind a later one."""

OURS = frozenset({"account", "tenant"})
"""Formats that no source takes from an account or gives to one."""


def waits(one: Claimed) -> Outcome:
    """What becomes of an event whose account is not known."""
    whose = "tenant" if one.of_tenant else "account"
    return _outcome(one, "waiting_for_account", f"no {whose} has this name yet")


def apply(
    tx: Tx, changes: Sequence[Claimed], links: dict[Identity, list[Link]], policy: Policy
) -> list[Outcome]:
    """Carry out what can be carried out of these changes, by their time, and finish their rows;
    what became of each.

    `links` holds every link of their names, which are locked, as are their accounts; it is brought
    up to date. A name that another account has is not taken from it: the change parks, with an
    alarm, and is looked at again when the name becomes free.
    """
    if not changes:
        return []
    book = _Book(links)
    pending = sorted(changes, key=lambda one: (one.at, one.event.sequence or 0, one.id))
    outcomes: dict[int, Outcome] = {}
    while True:
        left = []
        for one in pending:
            outcomes[one.id] = _judge(one, book, policy.future_tolerance)
            if _may_change(outcomes[one.id]):
                left.append(one)
        if len(left) == len(pending):
            break
        pending = left  # what was carried out may have been what these waited for
    _write(tx, book)
    for outcome in outcomes.values():
        if _is_taken(outcome):
            tx.alarm(TAKEN, event=outcome["id"], why=outcome["reason"])
    event_rows.finish(tx, outcomes.values())
    _look_again(tx, book)
    return list(outcomes.values())


def _may_change(outcome: Outcome) -> bool:
    return outcome["state"] == "waiting_for_account" or _is_taken(outcome)


def _is_taken(outcome: Outcome) -> bool:
    return (outcome["reason"] or "").startswith(f"{TAKEN}:")


def _outcome(
    one: Claimed, state: str, reason: str | None = None, account_id: UUID | None = None
) -> Outcome:
    account = str(account_id) if account_id else None
    return {"id": one.id, "state": state, "reason": reason, "account_id": account}


@dataclass
class _Book:
    """The links of the names in question, and what is to be written of them."""

    links: dict[Identity, list[Link]]
    changed: dict[UUID, tuple[Identity, Link]] = field(default_factory=dict)
    added: dict[UUID, tuple[Identity, Link]] = field(default_factory=dict)
    audited: list[dict[str, Any]] = field(default_factory=list)
    again: list[tuple[Identity, datetime]] = field(default_factory=list)
    """Names, and when one was given up by a change that turns out to be about somebody else."""
    passed_on: list[tuple[Identity, datetime]] = field(default_factory=list)
    """Names that somebody had lost, and from when on another is known to have had one."""

    def at(self, name: Identity, moment: datetime) -> Link | None:
        return named_at(self.links.get(name, ()), moment)

    def now(self, name: Identity) -> Link | None:
        return next((one for one in self.links.get(name, ()) if one.unlinked_at is None), None)

    def put(self, name: Identity, link: Link) -> None:
        """A new link, or another state of one."""
        assert link.id is not None
        others = [one for one in self.links.get(name, ()) if one.id != link.id]
        known = len(others) < len(self.links.get(name, ()))
        self.links[name] = [*others, link]
        written = self.changed if known and link.id not in self.added else self.added
        written[link.id] = name, link

    def audit(self, one: Claimed, action: str, account_id: UUID, name: Identity) -> None:
        why = f"{' '.join(filter(None, name))}: {one.cause}"
        entry = {"actor": _actor(one), "action": action, "account_id": str(account_id), "why": why}
        self.audited.append(entry)


def _actor(one: Claimed) -> str:
    return f"source:{one.source}"


def _judge(one: Claimed, book: _Book, tolerance: timedelta) -> Outcome:
    """Decide one change, and carry it out in the book if it counts.

    It gives nobody back access, but in doubt it parks all the same: a name that is lost may be what
    the next event that cuts goes by.
    """
    leaving, doubt = _leaving(one), _doubt(one, tolerance)
    if doubt:
        return _outcome(one, "parked", doubt)
    if one.new_name in leaving:
        return _outcome(one, "done", "no_change: it is the same name in another spelling")
    hits = [(name, book.at(name, one.at)) for name in (*leaving, *one.names)]
    link = next((hit for _, hit in hits if hit is not None), None)
    if link is None:
        return _unknown(one, leaving, book)
    account_id = link.account_id
    late = _too_late(one, leaving, book)
    if late:
        return _outcome(one, *late, account_id)
    for name, found in hits:
        if found and name[0] in RECYCLABLE and one.at < found.linked_at:
            reason = f"older_than_link: the {name[0]} may have named somebody else then"
            return _outcome(one, "parked", reason, account_id)
    holder = book.now(one.new_name) if one.new_name else None
    if holder is not None and holder.account_id != account_id:
        reason = (
            f"{TAKEN}: the new name is that of account {holder.account_id}; nothing was changed"
        )
        return _outcome(one, "parked", reason, account_id)
    for name in leaving:
        _unlink(one, name, account_id, book)
    if one.new_name is not None:
        _relink(one, one.new_name, holder, account_id, book)
    return _outcome(one, "done", None, account_id)


def _leaving(one: Claimed) -> list[Identity]:
    """The names that the account loses: those of the new one's kind, else the best one."""
    names = [name for name in one.names if name[0] not in OURS]
    alike = [name for name in names if one.new_name and name[0] == one.new_name[0]]
    return alike or [name for name in one.names[:1] if name in names]


def _doubt(one: Claimed, tolerance: timedelta) -> str | None:
    if one.event.conflict:
        return CONFLICT
    if one.at > one.event.received_at + tolerance:
        return "from_the_future: check the producer's clock"
    new = one.new_name
    if one.of_tenant:
        return "not_supported: an operator changes what names a tenant"
    if not _leaving(one) and new is None:
        return "not_supported: it takes no name that a source gives"
    if new is not None and new[0] in OURS:
        return f"not_supported: no source gives an account a name of the format {new[0]}"
    foreign = [n for n in (*_leaving(one), new) if n and n[0] in ISSUED and n[1] != one.source]
    if foreign:
        return f"not_its_own: this id is {foreign[0][1]!r}'s, and only that source may change it"
    try:
        if new is not None:
            normalised(*new)
    except Refused as error:
        return f"{error.code}: {error.message}"
    return None


def _unknown(one: Claimed, leaving: Sequence[Identity], book: _Book) -> Outcome:
    """Another source may have told of the same change before; else the account may be to come."""
    holder = book.now(one.new_name) if one.new_name else None
    for link in (link for name in leaving for link in book.links.get(name, ())):
        told = link.unlinked_by not in (None, _actor(one))
        if told and (one.new_name is None or (holder and holder.account_id == link.account_id)):
            reason = f"{TOLD}: {link.unlinked_by} told of it"
            return _outcome(one, "done", reason, link.account_id)
    return waits(one)


def _too_late(one: Claimed, leaving: Sequence[Identity], book: _Book) -> tuple[str, str] | None:
    """State and reason of a change behind which a newer one was applied; None where it counts."""
    if _is_outnumbered(one, leaving, book):
        return "stale", "a newer change of this name was applied before"
    return ("parked", CONTRADICTED) if _is_contradicted(one, leaving, book) else None


def _is_outnumbered(one: Claimed, leaving: Sequence[Identity], book: _Book) -> bool:
    """Whether its source has given the name anew by a higher number."""
    sequence = one.event.sequence
    if sequence is None:
        return False
    for name in leaving:
        link = book.at(name, one.at)
        marks = _sequences(book.links[name], _actor(one)) if link and not link.unlinked_at else ()
        if any(mark > sequence for mark in marks):
            return True
    return False


def _is_contradicted(one: Claimed, leaving: Sequence[Identity], book: _Book) -> bool:
    """Whether a change of a later time has put another name in the place of this one.

    Then the name was given up twice: by two people, of whom the later one is taken for the earlier,
    or by one who had got it back. One that put no other name in its place said only that it is
    gone: then this one, which may have another name to give, still counts.
    """
    for name in leaving:
        link = book.at(name, one.at)
        if link and link.unlinked_at and link.replaced and not _same(one, link, book):
            return True
    return False


def _same(one: Claimed, link: Link, book: _Book) -> bool:
    """Whether the newer change that ended this link put the same name in its place."""
    holder = book.now(one.new_name) if one.new_name else None
    return bool(
        holder
        and holder.account_id == link.account_id
        and holder.linked_at == link.unlinked_at
        and holder.linked_by == link.unlinked_by
    )


def _sequences(links: Sequence[Link], actor: str) -> Iterator[int]:
    for link in links:
        for by, sequence in (
            (link.linked_by, link.linked_sequence),
            (link.unlinked_by, link.unlinked_sequence),
        ):
            if by == actor and sequence is not None:
                yield sequence


def _unlink(one: Claimed, name: Identity, account_id: UUID, book: _Book) -> None:
    link = book.at(name, one.at)
    if link is None or link.account_id != account_id or link.id is None:
        return
    if link.unlinked_at is None:
        book.audit(one, "account.unlinked", account_id, name)
    elif one.at < link.unlinked_at and not link.replaced:
        book.again.append((name, link.unlinked_at))
    ended = replace(
        link,
        unlinked_at=max(one.at, link.linked_at),
        unlinked_by=_actor(one),
        unlinked_sequence=one.event.sequence,
        replaced=one.new_name is not None,
    )
    book.put(name, ended)


def _relink(
    one: Claimed, name: Identity, holder: Link | None, account_id: UUID, book: _Book
) -> None:
    if holder is not None and holder.id is not None:
        if one.at < holder.linked_at and _took_over(holder, name, one, book):
            sooner = replace(holder, linked_at=one.at, linked_by=_actor(one))
            _have(one, name, sooner, book)
        return
    ends = [link.unlinked_at for link in book.links.get(name, ()) if link.unlinked_at]
    link = Link(
        account_id=account_id,
        format=name[0],
        linked_at=max([one.at, *ends]),
        id=new_id(),
        linked_by=_actor(one),
        linked_sequence=one.event.sequence,
    )
    book.audit(one, "account.linked", account_id, name)
    _have(one, name, link, book)


def _have(one: Claimed, name: Identity, link: Link, book: _Book) -> None:
    if any(other.unlinked_by for other in book.links.get(name, ())):
        book.passed_on.append((name, one.at))
    book.put(name, link)


def _took_over(holder: Link, name: Identity, one: Claimed, book: _Book) -> bool:
    """Whether nobody else had the name between this change and the link that a later one made."""
    others = (link for link in book.links[name] if link.id != holder.id and link.unlinked_at)
    return all(link.unlinked_at is not None and link.unlinked_at <= one.at for link in others)


def _write(tx: Tx, book: _Book) -> None:
    if book.changed:
        tx.execute(_CHANGE, rows=_json(book.changed))
        gone = {name for name, link in book.changed.values() if link.unlinked_at}
        _tell_of_addresses(tx, book, gone)
        if gone:
            event_rows.free(tx, [value for _, _, value in gone])
    if book.added:
        tx.execute(_ADD, rows=_json(book.added))
    if book.audited:
        tx.execute(_AUDIT, rows=json.dumps(book.audited))


def _look_again(tx: Tx, book: _Book) -> None:
    """Some may be of this very batch: their rows are finished by now."""
    if book.again:
        event_rows.reopen(tx, [(value, at) for (_, _, value), at in book.again])
    if book.passed_on:
        event_rows.doubt(tx, [(value, at) for (_, _, value), at in book.passed_on])


def _tell_of_addresses(tx: Tx, book: _Book, gone: set[Identity]) -> None:
    """No message moves the address that mails go to; a person must know that it names nobody."""
    emails = [value for format, _, value in gone if format == "email"]
    if not emails:
        return
    found = tx.rows(
        "SELECT id, email FROM keyturn.accounts WHERE email = ANY(:emails)", emails=emails
    )
    for row in found:
        name = ("email", "", row["email"])
        holder = book.now(name)
        if holder is None or holder.account_id != row["id"]:
            tx.alarm("address_unlinked", account=str(row["id"]), why=UNLINKED)


def _json(written: Mapping[UUID, tuple[Identity, Link]]) -> str:
    rows = []
    for (format, issuer, value), link in written.values():
        facts = {**vars(link), "format": format, "issuer": issuer, "value": value}
        rows.append({key: _plain(fact) for key, fact in facts.items()})
    return json.dumps(rows)


def _plain(fact: object) -> object:
    if isinstance(fact, datetime):
        return fact.isoformat()
    return str(fact) if isinstance(fact, UUID) else fact


_CHANGE = """
    UPDATE keyturn.account_identities i SET linked_at = r.linked_at, unlinked_at = r.unlinked_at,
        unlinked_by = r.unlinked_by, unlinked_sequence = r.unlinked_sequence, replaced = r.replaced
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, linked_at timestamptz, unlinked_at timestamptz, unlinked_by text,
        unlinked_sequence bigint, replaced boolean)
    WHERE i.id = r.id
"""
_ADD = """
    INSERT INTO keyturn.account_identities (
        id, account_id, format, issuer, value, linked_at, unlinked_at, linked_by, unlinked_by,
        linked_sequence, unlinked_sequence, replaced)
    SELECT id, account_id, format, issuer, value, linked_at, unlinked_at, linked_by, unlinked_by,
           linked_sequence, unlinked_sequence, replaced
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, account_id uuid, format text, issuer text, value text, linked_at timestamptz,
        unlinked_at timestamptz, linked_by text, unlinked_by text, linked_sequence bigint,
        unlinked_sequence bigint, replaced boolean)
"""
_AUDIT = """
    INSERT INTO keyturn.audit (at, actor, action, account_id, why)
    SELECT :now, actor, action, account_id, why
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r (actor text, action text, account_id uuid, why text)
"""
