"""Account events become holds: claimed in batches, folded per (account, source, kind), applied."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping

from . import accounts, bursts, holds, leaks
from .accounts import Identity, Link
from .base import Database, Tx, is_server_trouble
from .event_order import CONFLICT, KIND, Dated, Mark, judge
from .events import RESTRICTIVE, Action
from .identity import new_id
from .key_text import Peppers
from .policy import Policy

PARK_AFTER = 5
"""Attempts that an event may fail on its own account before it is parked."""

Target = tuple[UUID, str, str]
"""Account, source and kind: what one hold is unique by."""


@dataclass(frozen=True)
class Claimed:
    """An event that is this worker's until its lease ends."""

    id: int
    fence: int
    source: str
    attempts: int
    event: Dated
    names: tuple[Identity, ...]
    key_digest: str | None
    raw_type: str

    @property
    def cause(self) -> str:
        """What the audit and the hold say of it."""
        return f"{self.raw_type} (event {self.id})"


_COLUMNS = """
    i.id, i.fence, i.source, i.attempts, i.action, i.occurred_at, i.received_at, i.sequence,
    i.conflict, i.subject, i.key_digest, i.raw_type
"""
_SOURCES = """
    WITH RECURSIVE waiting (source) AS (
        (SELECT source FROM keyturn.inbox WHERE state = 'received' AND urgent = :urgent
         ORDER BY source LIMIT 1)
        UNION ALL
        SELECT (SELECT source FROM keyturn.inbox
                WHERE state = 'received' AND urgent = :urgent AND source > w.source
                ORDER BY source LIMIT 1)
        FROM waiting w WHERE w.source IS NOT NULL
    )
    SELECT source FROM waiting WHERE source IS NOT NULL
"""
_CLAIM = f"""
    WITH due AS (
        SELECT one.id FROM unnest(CAST(:sources AS text[])) AS s (source)
        CROSS JOIN LATERAL (
            SELECT id FROM keyturn.inbox
            WHERE state = 'received' AND urgent = :urgent AND source = s.source
              AND next_attempt_at <= :now
            ORDER BY id LIMIT :share FOR UPDATE SKIP LOCKED
        ) one
    )
    UPDATE keyturn.inbox i
    SET attempts = attempts + 1, fence = fence + 1, next_attempt_at = :now + :lease
    FROM due WHERE i.id = due.id
    RETURNING {_COLUMNS}
"""


def claim(tx: Tx, policy: Policy) -> list[Claimed]:
    """Claim due events: those that cut access first, each source in its turn.

    The claim commits before the work, so that a death in the middle costs an attempt and a lease,
    never the event.
    """
    claimed: list[Claimed] = []
    for urgent in (True, False):
        room = policy.apply_batch - len(claimed)
        sources = tx.execute(_SOURCES, urgent=urgent).scalars().all()
        if room <= 0 or not sources:
            continue
        share = max(1, room // len(sources))
        rows = tx.rows(
            _CLAIM, sources=list(sources), urgent=urgent, share=share, lease=policy.lease
        )
        claimed += map(_claimed, rows)
    return sorted(claimed, key=lambda one: one.id)


def apply_claimed(
    database: Database, claimed: Sequence[Claimed], policy: Policy, peppers: Peppers
) -> Counter[str]:
    """Apply claimed events in one transaction; where that fails, in halves, down to the one row.

    Returns how many are in each state now.

    A row that fails alone pays for it: it is tried again after a pause, and parked after
    PARK_AFTER attempts. What the server failed at is nobody's fault: the attempt is given back.
    """
    try:
        return database.run(lambda tx: apply(tx, claimed, policy, peppers))
    except Exception as error:
        if is_server_trouble(error):
            database.run(lambda tx: _give_back(tx, claimed))
            raise
        if len(claimed) > 1:
            middle = len(claimed) // 2
            first = apply_claimed(database, claimed[:middle], policy, peppers)
            return first + apply_claimed(database, claimed[middle:], policy, peppers)
        reason = f"failed: {type(error).__name__}"
        return database.run(lambda tx: _charge(tx, claimed[0], reason))


def apply_waiting(tx: Tx, values: Sequence[str], policy: Policy) -> Counter[str]:
    """Apply what waited for an account that has just got one of these names.

    Part of the transaction that links the name, which holds the identity's advisory lock: the
    account is never seen without the holds that were waiting for it.
    """
    rows = tx.rows(
        f"""
        SELECT {_COLUMNS} FROM keyturn.inbox i
        WHERE state = 'waiting_for_account' AND subject_value && CAST(:values AS text[])
        ORDER BY id FOR UPDATE
        """,
        values=list(values),
    )
    return apply(tx, [_claimed(row) for row in rows], policy)


def apply(
    tx: Tx, claimed: Sequence[Claimed], policy: Policy, peppers: Peppers | None = None
) -> Counter[str]:
    """Place and lift the holds that these events ask for, in order, and finish their rows.

    `peppers` are needed where a report of a leaked key is among them.
    """
    if not claimed:
        return Counter()
    links = _links(tx, [one for one in claimed if one.key_digest is None])
    mine = _still_mine(tx, claimed)
    events = [one for one in claimed if one.id in mine]
    leaked = leaks.keys(tx, [one.key_digest for one in events if one.key_digest], peppers)
    found = [one for one in events if one.id in links]
    holds.lock_accounts(
        tx,
        [links[one.id].account_id for one in found] + [key.account_id for key in leaked.values()],
    )
    outcomes = _apply_to_accounts(tx, found, links, policy)
    for one in events:
        if one.key_digest is not None:
            key = leaked.get(one.key_digest)
            outcomes.append(_apply_to_key(tx, one, key, policy))
        elif one.id not in links:
            reason = "no account has this name yet"
            outcomes.append({"id": one.id, "state": "waiting_for_account", "reason": reason})
    _finish(tx, outcomes)
    return Counter(outcome["state"] for outcome in outcomes)


def _apply_to_accounts(
    tx: Tx, found: Sequence[Claimed], links: Mapping[int, Link], policy: Policy
) -> list[dict[str, Any]]:
    marks = _marks(tx, {links[one.id].account_id for one in found})
    before = dict(marks)
    outcomes: list[dict[str, Any]] = []
    causes: dict[Target, Claimed] = {}
    for one in found:
        link = links[one.id]
        target = (link.account_id, one.source, KIND[one.event.action])
        old = marks.get(target, Mark())
        verdict = judge(one.event, old, link, policy.future_tolerance)
        if verdict.mark is not old:
            marks[target] = verdict.mark
            causes[target] = one
        outcomes.append(
            {
                "id": one.id,
                "state": verdict.state,
                "reason": verdict.reason,
                "account_id": str(link.account_id),
            }
        )
    _write_holds(tx, causes, before, marks)
    bursts.watch(tx, {target[1] for target in causes if marks[target].standing}, policy)
    return outcomes


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


def _claimed(row: RowMapping) -> Claimed:
    event = Dated(
        id=row["id"],
        action=Action(row["action"]),
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        sequence=row["sequence"],
        conflict=row["conflict"],
    )
    names = tuple((one["format"], one["issuer"], one["value"]) for one in row["subject"])
    return Claimed(
        id=row["id"],
        fence=row["fence"],
        source=row["source"],
        attempts=row["attempts"],
        event=event,
        names=names,
        key_digest=row["key_digest"],
        raw_type=row["raw_type"],
    )


def _links(tx: Tx, claimed: Sequence[Claimed]) -> dict[int, Link]:
    """The account of each event, by the first of its names that is known.

    Names that miss are looked up again under their advisory locks, which account creation takes:
    either it sees the waiting event, or we see the account.
    """
    known = accounts.resolve(tx, {name for one in claimed for name in one.names})
    missed = {n for one in claimed if known.keys().isdisjoint(one.names) for n in one.names}
    if missed:
        accounts.lock_identities(tx, missed)
        known |= accounts.resolve(tx, missed)
    links = {}
    for one in claimed:
        hit = next((known[name] for name in one.names if name in known), None)
        if hit is not None:
            links[one.id] = hit
    return links


def _still_mine(tx: Tx, claimed: Sequence[Claimed]) -> set[int]:
    """Lock the rows; those that another worker has claimed since, or finished, are left to it."""
    return set(
        tx.execute(
            """
            SELECT i.id FROM keyturn.inbox i
            JOIN unnest(CAST(:ids AS bigint[]), CAST(:fences AS int[])) AS mine (id, fence)
              ON i.id = mine.id AND i.fence = mine.fence
            WHERE i.state IN ('received', 'waiting_for_account')
            ORDER BY i.id FOR UPDATE OF i
            """,
            ids=[one.id for one in claimed],
            fences=[one.fence for one in claimed],
        ).scalars()
    )


def _marks(tx: Tx, account_ids: set[UUID]) -> dict[Target, Mark]:
    rows = tx.rows(
        """
        SELECT account_id, source, kind, mark_at, mark_sequence, mark_event,
               placed_at IS NOT NULL AND lifted_at IS NULL AS standing
        FROM keyturn.holds WHERE account_id = ANY(:ids)
        """,
        ids=list(account_ids),
    )
    return {
        (row["account_id"], row["source"], row["kind"]): Mark(
            row["standing"], row["mark_at"], row["mark_sequence"], row["mark_event"]
        )
        for row in rows
    }


def _write_holds(
    tx: Tx,
    causes: Mapping[Target, Claimed],
    before: Mapping[Target, Mark],
    after: Mapping[Target, Mark],
) -> None:
    if not causes:
        return
    rows = [
        {
            "id": str(new_id()),
            "account_id": str(target[0]),
            "source": target[1],
            "kind": target[2],
            "standing": after[target].standing,
            "changed": after[target].standing != before.get(target, Mark()).standing,
            "mark_at": _text(after[target].at),
            "mark_sequence": after[target].sequence,
            "mark_event": after[target].event,
            "why": one.cause,
        }
        for target, one in causes.items()
    ]
    tx.execute(_HOLDS, rows=json.dumps(rows))
    holds.refresh_accounts(tx, sorted({target[0] for target in causes}))


_HOLDS = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, account_id uuid, source text, kind text, standing boolean, changed boolean,
        mark_at timestamptz, mark_sequence bigint, mark_event bigint, why text)
), audited AS (
    INSERT INTO keyturn.audit (at, actor, action, account_id, why)
    SELECT :now, 'source:' || source,
           CASE WHEN standing THEN 'hold.placed' ELSE 'hold.lifted' END, account_id,
           source || '/' || kind || ': ' || why
    FROM r WHERE changed
)
INSERT INTO keyturn.holds AS h
    (id, account_id, source, kind, placed_at, reason, mark_at, mark_sequence, mark_event)
SELECT id, account_id, source, kind, CASE WHEN standing THEN :now END, why,
       mark_at, mark_sequence, mark_event
FROM r ORDER BY account_id, source, kind
ON CONFLICT (account_id, source, kind) WHERE account_id IS NOT NULL DO UPDATE SET
    placed_at = CASE
        WHEN excluded.placed_at IS NULL THEN h.placed_at
        WHEN h.placed_at IS NULL OR h.lifted_at IS NOT NULL THEN excluded.placed_at
        ELSE h.placed_at END,
    lifted_at = CASE
        WHEN excluded.placed_at IS NOT NULL THEN NULL
        WHEN h.placed_at IS NOT NULL THEN coalesce(h.lifted_at, :now) END,
    confirmed_at = CASE WHEN h.lifted_at IS NULL THEN h.confirmed_at END,
    reason = excluded.reason,
    mark_at = excluded.mark_at,
    mark_sequence = excluded.mark_sequence,
    mark_event = excluded.mark_event
"""


def _finish(tx: Tx, outcomes: Sequence[Mapping[str, Any]]) -> None:
    tx.execute(
        """
        UPDATE keyturn.inbox i SET state = r.state, reason = r.reason, account_id = r.account_id,
            finished_at = CASE WHEN r.state IN ('done', 'stale') THEN :now END
        FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
            id bigint, state text, reason text, account_id uuid)
        WHERE i.id = r.id
        """,
        rows=json.dumps(list(outcomes)),
    )


def _give_back(tx: Tx, claimed: Sequence[Claimed]) -> None:
    tx.execute(
        """
        UPDATE keyturn.inbox i SET attempts = greatest(i.attempts - 1, 0),
            next_attempt_at = :now + interval '1 second'
        FROM unnest(CAST(:ids AS bigint[]), CAST(:fences AS int[])) AS mine (id, fence)
        WHERE i.id = mine.id AND i.fence = mine.fence AND i.state = 'received'
        """,
        ids=[one.id for one in claimed],
        fences=[one.fence for one in claimed],
    )


def _charge(tx: Tx, one: Claimed, reason: str) -> Counter[str]:
    """Put off a row that failed alone. One that would cut access is never parked without effect."""
    park = one.attempts >= PARK_AFTER and one.event.action not in RESTRICTIVE
    tx.execute(
        """
        UPDATE keyturn.inbox SET state = :state, reason = :reason,
            next_attempt_at = :now + least(power(2, :attempts), 600) * interval '1 second'
        WHERE id = :id AND fence = :fence AND state = 'received'
        """,
        id=one.id,
        fence=one.fence,
        state="parked" if park else "received",
        reason=reason,
        attempts=one.attempts,
    )
    return Counter({"parked" if park else "failed": 1})


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
