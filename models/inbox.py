"""What came in: every message is a committed row before anything happens because of it."""

import hashlib
import json
from base64 import b64encode
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from . import accounts, audit
from .base import Tx
from .errors import NotFound, Refused
from .events import RESTRICTIVE, AccountEvent, Action, Certainty, Subject, content_hash, dedup_key
from .policy import Policy

MAX_KEPT_BODY = 16 * 1024 * 1024

REPLAYED = ("parked", "waiting_for_account")
"""States from which an event that could be read is looked at again."""


@dataclass(frozen=True)
class Source:
    """A producer, as the configuration names it; a message never names its own."""

    name: str
    provider: str
    actions: frozenset[Action] = frozenset(Action)


@dataclass(frozen=True)
class Rejection:
    """Why a message could not be read."""

    code: str
    message: str


@dataclass(frozen=True)
class Received:
    """One member of one message: the event in it, or why there is none.

    `delivery_id` is the transport's own name for it, unique per source and the same when it is
    delivered again.
    """

    delivery_id: str
    content: AccountEvent | Rejection
    headers: Mapping[str, str]
    body: bytes


def accept(tx: Tx, source: Source, received: Sequence[Received]) -> Counter[str]:
    """Store events of one source, each once; counts them by the state in which they begin.

    `duplicate`s (same key, same content) leave nothing behind. The same key with other content is
    stored as a conflict: it cannot be told which one is true. Rejected messages keep their body.
    """
    rows = [_row(source, item) for item in received]
    fresh = _remember(tx, source.name, [(row["dedup_key"], row["hash"]) for row in rows])
    counts: Counter[str] = Counter()
    stored = []
    for row, outcome in zip(rows, fresh, strict=True):
        if outcome == "duplicate":
            counts["duplicate"] += 1
            continue
        row["conflict"] = outcome == "conflict"
        counts["conflict" if row["conflict"] else row["state"]] += 1
        stored.append(row)
    if stored:
        _insert(tx, stored)
        _tell_of_pauses(tx, stored)
    if counts["received"] or counts["conflict"]:
        tx.ring("accounts.apply_events")
    return counts


def _tell_of_pauses(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    """A stream that its transmitter has paused brings nobody's events any more."""
    for row in rows:
        paused = (row.get("raw_type") or "").endswith("/stream-updated") and row[
            "state"
        ] == "parked"
        if paused:
            tx.alarm("stream_paused", source=row["source"], why=row["why"])


def _row(source: Source, item: Received) -> dict[str, Any]:
    common = {"source": source.name, "provider": source.provider, "headers": dict(item.headers)}
    if isinstance(item.content, Rejection):
        return common | {
            "dedup_key": f"rejected:{item.delivery_id}",
            "hash": hashlib.sha256(item.body).hexdigest(),
            "state": "rejected",
            "reason": f"{item.content.code}: {item.content.message}",
            "body": b64encode(item.body[:MAX_KEPT_BODY]).decode(),
        }
    event = item.content
    subjects = _subjects(event.subject, source.name)
    state, reason = _first_state(source, event.action, event.certainty)
    new_subject = next(iter(_subjects(event.new_subject, source.name)), None)
    named = [*subjects, new_subject] if new_subject else subjects
    return common | {
        "dedup_key": dedup_key(event, item.delivery_id),
        "hash": content_hash(event).hex(),
        "state": state,
        "reason": reason,
        "urgent": event.action in RESTRICTIVE,
        "action": event.action,
        "certainty": event.certainty,
        "raw_type": event.raw_type,
        "event_id": event.event_id,
        "occurred_at": event.occurred_at.isoformat() if event.occurred_at else None,
        "sequence": event.sequence,
        "subject": subjects,
        "subject_value": list(dict.fromkeys(subject["value"] for subject in named)),
        "new_subject": new_subject,
        "key_digest": event.key_digest,
        "why": event.reason,
        "actor": event.actor,
    }


def _first_state(source: Source, action: Action, certainty: Certainty) -> tuple[str, str | None]:
    if certainty is Certainty.HINT:
        return "parked", "hint: something may have changed; look at the account at the producer"
    if action is Action.NONE:
        return "ignored", "no_effect: this type of event says nothing about an account's state"
    if action not in source.actions:
        return "parked", f"not_trusted: source {source.name!r} may not say {action!s}"
    return "received", None


def _subjects(subject: Subject | None, source: str) -> list[dict[str, str]]:
    """The names of the event's account, best first, each in the one spelling that links have."""
    if subject is None:
        return []
    return [
        dict(zip(("format", "issuer", "value"), _identity(one, source), strict=True))
        for one in (subject, *subject.aliases)
    ]


def _identity(subject: Subject, source: str) -> accounts.Identity:
    try:
        return accounts.identity(subject, source)
    except Refused:  # no such address: it names nobody, and the event is kept all the same
        return subject.format, subject.issuer, subject.value


def _remember(tx: Tx, source: str, keys: Sequence[tuple[str, str]]) -> list[str]:
    """For each (dedup key, content hash) in turn: `new`, `duplicate` or `conflict`."""
    first: dict[str, str] = {}
    for key, content in keys:
        first.setdefault(key, content)
    inserted = set(_insert_keys(tx, source, first))
    known = first | _known(tx, source, [key for key in first if key not in inserted])
    conflicts = {f"{key}#{content}": content for key, content in keys if known[key] != content}
    new_conflicts = set(_insert_keys(tx, source, conflicts))
    outcomes = []
    for key, content in keys:
        if known[key] != content:
            named = f"{key}#{content}"
            outcomes.append("conflict" if named in new_conflicts else "duplicate")
            new_conflicts.discard(named)
        else:
            outcomes.append("new" if key in inserted else "duplicate")
            inserted.discard(key)
    return outcomes


def _insert_keys(tx: Tx, source: str, keys: Mapping[str, str]) -> Sequence[str]:
    if not keys:
        return ()
    ordered = sorted(keys)  # two intakes insert in one order, so that neither waits in a circle
    return (
        tx.execute(
            """
            INSERT INTO keyturn.inbox_keys (source, dedup_key, content_hash)
            SELECT :source, key, decode(hash, 'hex')
            FROM unnest(CAST(:keys AS text[]), CAST(:hashes AS text[])) AS r (key, hash)
            ON CONFLICT DO NOTHING RETURNING dedup_key
            """,
            source=source,
            keys=ordered,
            hashes=[keys[key] for key in ordered],
        )
        .scalars()
        .all()
    )


def _known(tx: Tx, source: str, keys: Sequence[str]) -> dict[str, str]:
    if not keys:
        return {}
    rows = tx.rows(
        """
        SELECT dedup_key, encode(content_hash, 'hex') AS hash FROM keyturn.inbox_keys
        WHERE source = :source AND dedup_key = ANY(:keys)
        """,
        source=source,
        keys=list(keys),
    )
    return {row["dedup_key"]: row["hash"] for row in rows}


def _insert(tx: Tx, rows: Sequence[Mapping[str, Any]]) -> None:
    # Each row is received a microsecond after the one before it: events without a time of their
    # own are ordered by their receipt, and one batch has only one instant.
    tx.execute(
        """
        INSERT INTO keyturn.inbox (
            source, provider, state, reason, urgent, action, certainty, raw_type, event_id,
            occurred_at, sequence, subject, subject_value, new_subject, key_digest, why, actor,
            conflict, headers, body, received_at, finished_at, next_attempt_at)
        SELECT source, provider, state, reason, coalesce(urgent, false), action, certainty,
            raw_type, event_id, occurred_at, sequence, subject, subject_value, new_subject,
            key_digest, why, actor, conflict, CASE WHEN state = 'rejected' THEN headers END,
            decode(body, 'base64'),
            :now + n * interval '1 microsecond', CASE WHEN state = 'ignored' THEN :now END, :now
        FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS (
            source text, provider text, state text, reason text, urgent boolean, action text,
            certainty text, raw_type text, event_id text, occurred_at timestamptz,
            sequence bigint, subject jsonb, subject_value text[], new_subject jsonb,
            key_digest text, why text, actor text, conflict boolean, headers jsonb,
            body text)) WITH ORDINALITY AS r (
            source, provider, state, reason, urgent, action, certainty, raw_type, event_id,
            occurred_at, sequence, subject, subject_value, new_subject, key_digest, why, actor,
            conflict, headers, body, n)
        ORDER BY n
        """,
        rows=json.dumps(rows),
    )


@dataclass(frozen=True)
class InboxEvent:
    """An inbox row as operators see it."""

    id: int
    source: str
    provider: str
    state: str
    reason: str | None
    action: str | None
    certainty: str | None
    raw_type: str | None
    event_id: str | None
    subject: list[dict[str, str]] | None
    new_subject: dict[str, str] | None
    key_digest: str | None
    account_id: UUID | None
    sequence: int | None
    occurred_at: datetime | None
    received_at: datetime
    finished_at: datetime | None
    attempts: int
    conflict: bool


_COLUMNS = ", ".join(InboxEvent.__dataclass_fields__)


def listed(tx: Tx, *, state: str | None = None, limit: int = 100) -> list[InboxEvent]:
    """Events, newest first, all or those in one state."""
    where = "" if state is None else "WHERE state = :state"
    rows = tx.rows(
        f"SELECT {_COLUMNS} FROM keyturn.inbox {where} ORDER BY id DESC LIMIT :limit",
        limit=limit,
        **({} if state is None else {"state": state}),
    )
    return [InboxEvent(**row) for row in rows]


def find(tx: Tx, event: int) -> InboxEvent:
    """One event by its number; NotFound (`event_unknown`) if there is none."""
    row = tx.row(f"SELECT {_COLUMNS} FROM keyturn.inbox WHERE id = :id", id=event)
    if row is None:
        raise NotFound("event_unknown", f"there is no event {event}; `keyturn events list` lists")
    return InboxEvent(**row)


def stored_message(tx: Tx, event: int) -> tuple[dict[str, str], bytes]:
    """The headers and the body of a rejected message, as they came in."""
    row = tx.row(
        "SELECT headers, body FROM keyturn.inbox WHERE id = :id AND state = 'rejected'", id=event
    )
    if row is None:
        raise Refused("event_not_rejected", f"event {event} was not rejected: its message is gone")
    return row["headers"] or {}, bytes(row["body"] or b"")


def requeue(tx: Tx, event: int, source: Source) -> None:
    """Have a parked or waiting event looked at again, by the rules as they stand now.

    `source` is its source as it is trusted now. Refused as `event_finished`, or as the rules refuse
    what the event says: `hint`, `not_trusted`.
    """
    found = find(tx, event)
    if found.state in REPLAYED and found.action and found.certainty:
        _, why = _first_state(source, Action(found.action), Certainty(found.certainty))
        if why is not None:
            code, message = why.split(": ", 1)
            raise Refused(code, f"event {event} stays {found.state}: {message}")
    moved = tx.count(
        """
        UPDATE keyturn.inbox SET state = 'received', reason = NULL, attempts = 0,
            conflict = false, next_attempt_at = :now, finished_at = NULL
        WHERE id = :id AND state = ANY(:states)
        """,
        id=event,
        states=list(REPLAYED),
    )
    if not moved:
        raise Refused(
            "event_finished",
            f"event {event} is {found.state} and says {found.action!r}: replaying it would do "
            "nothing",
        )
    tx.ring("accounts.apply_events")


def dismiss(tx: Tx, event: int, *, actor: str, reason: str) -> None:
    """End an event that a person has looked at and that nothing more is to be done about.

    Refused as `event_finished` where it waits for nobody, `event_unknown` where there is none.
    """
    ended = tx.count(
        """
        UPDATE keyturn.inbox SET state = 'ignored', finished_at = :now, reason = :reason
        WHERE id = :id AND state IN ('parked', 'rejected', 'waiting_for_account')
        """,
        id=event,
        reason=f"dismissed by {actor}: {reason}",
    )
    if not ended:
        state = find(tx, event).state
        raise Refused("event_finished", f"event {event} is {state}: nobody has to look at it")
    audit.record(tx, actor, "event.dismissed", why=f"event {event}: {reason}")


def replaced(tx: Tx, event: int, *, actor: str) -> None:
    """End a rejected message whose content has now been read and accepted anew."""
    tx.execute(
        """
        UPDATE keyturn.inbox SET state = 'done', reason = :reason, finished_at = :now
        WHERE id = :id AND state = 'rejected'
        """,
        id=event,
        reason=f"replayed by {actor}",
    )


def counts(tx: Tx) -> dict[str, int]:
    """How many events are in each state that wants a look."""
    rows = tx.rows(
        """
        SELECT state, count(*) AS n FROM keyturn.inbox
        WHERE state IN ('received', 'waiting_for_account', 'parked', 'rejected') GROUP BY state
        """
    )
    return {row["state"]: row["n"] for row in rows}


def forget(tx: Tx, policy: Policy, batch: int = 5000) -> int:
    """Remove finished events past their keeping; their dedup keys stay for ever."""
    return tx.count(
        """
        DELETE FROM keyturn.inbox WHERE id IN (
            SELECT id FROM keyturn.inbox
            WHERE state IN ('done', 'stale', 'ignored') AND finished_at < :now - :kept
            ORDER BY id LIMIT :batch)
        """,
        kept=policy.settled_kept,
        batch=batch,
    )
