"""The inbox as a worker sees it: rows are claimed for a while, and finished, or put off."""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .accounts import TENANT, Identity
from .base import Tx
from .event_order import Dated
from .events import RESTRICTIVE, Action
from .policy import Policy
from .statements import Row

PARK_AFTER = 5
"""Attempts that an event may fail on its own account before it is parked."""

TAKEN = "identity_taken"
"""How the reason begins of a change that parks because its new name is another account's."""

TOLD = "told_before"
"""How the reason begins of a change that counts as one that another source told of before."""


@dataclass(frozen=True)
class Claimed:
    """An event that is this worker's until its lease ends."""

    id: int
    fence: int
    source: str
    attempts: int
    event: Dated
    names: tuple[Identity, ...]
    new_name: Identity | None
    key_digest: str | None
    raw_type: str

    @property
    def at(self) -> datetime:
        """When it happened, as well as that is known: by its producer, or by its receipt."""
        return self.event.occurred_at or self.event.received_at

    @property
    def of_tenant(self) -> bool:
        """Whether it is about a whole tenant, and so about no account of its other names."""
        return bool(self.names) and self.names[0][0] == TENANT

    @property
    def cause(self) -> str:
        """What the audit and the hold say of it."""
        return f"{self.raw_type} (event {self.id})"


COLUMNS = """
    i.id, i.fence, i.source, i.attempts, i.action, i.occurred_at, i.received_at, i.sequence,
    i.conflict, i.subject, i.new_subject, i.key_digest, i.raw_type
"""
"""The columns of an inbox row `i` that `claimed_of` reads."""

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
    RETURNING {COLUMNS}
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
        claimed += map(claimed_of, rows)
    return sorted(claimed, key=lambda one: one.id)


def waiting(tx: Tx, values: Collection[str]) -> list[Claimed]:
    """What waits for an account that has one of these names, in the order of its receipt."""
    rows = tx.rows(
        f"""
        SELECT {COLUMNS} FROM keyturn.inbox i
        WHERE state = 'waiting_for_account' AND subject_value && CAST(:values AS text[])
        ORDER BY id
        """,
        values=list(values),
    )
    return [claimed_of(row) for row in rows]


def free(tx: Tx, values: Collection[str]) -> None:
    """Have changes looked at again that parked because one of these names was taken."""
    freed = tx.count(
        """
        UPDATE keyturn.inbox SET state = 'received', reason = NULL, attempts = 0,
            next_attempt_at = :now
        WHERE state = 'parked' AND action = 'identity_changed'
          AND split_part(reason, ':', 1) = :taken
          AND subject_value && CAST(:values AS text[])
        """,
        taken=TAKEN,
        values=list(values),
    )
    if freed:
        tx.ring("accounts.apply_events")


def reopen(tx: Tx, given_up: Collection[tuple[str, datetime]]) -> None:
    """Have changes looked at again that took a name from an account at a time at which, as has
    been told since, that account had it no longer."""
    reopened = tx.count(
        """
        UPDATE keyturn.inbox i SET state = 'received', reason = NULL, attempts = 0,
            next_attempt_at = :now, finished_at = NULL
        FROM unnest(CAST(:values AS text[]), CAST(:times AS timestamptz[])) AS g (value, at)
        WHERE i.state = 'done' AND i.action = 'identity_changed'
          AND coalesce(i.occurred_at, i.received_at) = g.at
          AND i.subject_value && CAST(ARRAY[g.value] AS text[])
        """,
        values=[value for value, _ in given_up],
        times=[at for _, at in given_up],
    )
    if reopened:
        tx.ring("accounts.apply_events")


def doubt(tx: Tx, passed_on: Collection[tuple[str, datetime]]) -> None:
    """Have changes looked at again that counted as told before, and are of a time at which, as has
    been told since, somebody else had the name."""
    doubted = tx.count(
        """
        UPDATE keyturn.inbox i SET state = 'received', reason = NULL, attempts = 0,
            next_attempt_at = :now, finished_at = NULL
        FROM unnest(CAST(:values AS text[]), CAST(:times AS timestamptz[])) AS g (value, at)
        WHERE i.state = 'done' AND i.action = 'identity_changed'
          AND split_part(i.reason, ':', 1) = :told
          AND coalesce(i.occurred_at, i.received_at) > g.at
          AND i.subject_value && CAST(ARRAY[g.value] AS text[])
        """,
        told=TOLD,
        values=[value for value, _ in passed_on],
        times=[at for _, at in passed_on],
    )
    if doubted:
        tx.ring("accounts.apply_events")


def lock(tx: Tx, claimed: Collection[Claimed]) -> set[int]:
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


def finish(tx: Tx, outcomes: Iterable[Mapping[str, Any]]) -> None:
    """Write down what became of each: `id`, `state`, `reason`, `account_id`."""
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


def give_back(tx: Tx, claimed: Sequence[Claimed]) -> None:
    """Put off what the server failed at, at no charge."""
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


def charge(tx: Tx, one: Claimed, reason: str) -> Counter[str]:
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


def claimed_of(row: Row) -> Claimed:
    """The event of an inbox row that was locked."""
    event = Dated(
        id=row["id"],
        action=Action(row["action"]),
        occurred_at=row["occurred_at"],
        received_at=row["received_at"],
        sequence=row["sequence"],
        conflict=row["conflict"],
    )
    new = row["new_subject"]
    return Claimed(
        id=row["id"],
        fence=row["fence"],
        source=row["source"],
        attempts=row["attempts"],
        event=event,
        names=tuple(_name(subject, row["source"]) for subject in row["subject"]),
        new_name=_name(new, row["source"]) if new else None,
        key_digest=row["key_digest"],
        raw_type=row["raw_type"],
    )


def _name(subject: Mapping[str, str], source: str) -> Identity:
    format, issuer, value = subject["format"], subject["issuer"], subject["value"]
    if format == TENANT and not issuer:  # stored before a tenant's name had one
        return format, source, value
    return format, issuer, value
