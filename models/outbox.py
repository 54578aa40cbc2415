"""What we tell the world: a row is committed with its cause, leased, sent outside, then settled."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from .base import Collected, Tx
from .identity import new_id
from .messages import Delivery, Outgoing
from .policy import Policy

EVENTS = "events"
MAIL = "mail"
URGENT, NORMAL = 1, 5
NO_WAIT = timedelta(0)

RETRY_FIRST = timedelta(seconds=5)
RETRY_LONGEST = timedelta(minutes=30)
GIVE_UP_AFTER = 20
"""Tries before a message is given up: about seven hours with the pauses above."""


_MESSAGES = Collected(
    "keyturn.outbox",
    """
    INSERT INTO keyturn.outbox
        (id, channel, kind, priority, account_id, payload, created_at, due_at)
    SELECT m.id, m.channel, m.kind, m.priority, m.account_id, m.payload, :now,
        :now + make_interval(secs => m.seconds)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS m (id uuid, channel text, kind text,
        priority smallint, account_id uuid, payload jsonb, seconds float8)
    """,
)


def add(
    tx: Tx,
    channel: str,
    kind: str,
    payload: dict[str, Any],
    *,
    account_id: UUID | None = None,
    priority: int = NORMAL,
    wait: timedelta = NO_WAIT,
) -> UUID:
    """Commit one message together with what causes it; it is rung for after the commit, unless it
    is to `wait` before it leaves.

    Mail goes to the e-mail address that the account has when the message is sent.
    """
    message_id = new_id()
    tx.add(
        _MESSAGES,
        id=message_id,
        channel=channel,
        kind=kind,
        priority=priority,
        account_id=account_id,
        payload=payload,
        seconds=wait.total_seconds(),
    )
    if not wait:
        tx.ring("outbox.deliver")
    return message_id


@dataclass(frozen=True)
class Leased:
    """Messages that are this worker's to send until the lease ends, and the fence of each."""

    messages: Sequence[Outgoing]
    fences: dict[UUID, int]


def lease(tx: Tx, channel: str, policy: Policy) -> Leased:
    """Claim due messages of one channel, most urgent and oldest first.

    A claim costs an attempt and moves `due_at` past the lease: a worker that dies with it leaves
    the message to the next one.
    """
    rows = tx.rows(
        """
        WITH due AS (
            SELECT id FROM keyturn.outbox
            WHERE channel = :channel AND state = 'waiting' AND due_at <= :now
            ORDER BY priority, due_at LIMIT :batch FOR UPDATE SKIP LOCKED
        )
        UPDATE keyturn.outbox o
        SET attempts = attempts + 1, fence = fence + 1, due_at = :now + :lease
        FROM due WHERE o.id = due.id
        RETURNING o.id, o.kind, o.account_id, o.payload, o.created_at, o.fence,
            (SELECT email FROM keyturn.accounts a WHERE a.id = o.account_id) AS recipient
        """,
        channel=channel,
        batch=policy.deliver_batch,
        lease=policy.lease,
    )
    messages = [
        Outgoing(
            id=row["id"],
            kind=row["kind"],
            account_id=row["account_id"],
            payload=row["payload"],
            recipient=row["recipient"],
            created_at=row["created_at"],
        )
        for row in rows
    ]
    messages.sort(key=lambda message: message.created_at)
    return Leased(messages, {row["id"]: row["fence"] for row in rows})


def settle(tx: Tx, leased: Leased, deliveries: Iterable[Delivery]) -> int:
    """Write down what became of leased messages; a message leased anew meanwhile is left alone.

    Returns how many were sent. One that may work later is due again after a growing pause, and is
    given up as `failed` after GIVE_UP_AFTER tries.
    """
    results = list(deliveries)
    if not results:
        return 0
    tx.execute(
        """
        UPDATE keyturn.outbox o
        SET state = CASE
                WHEN r.state <> 'retry' THEN r.state
                WHEN o.attempts >= :give_up THEN 'failed' ELSE 'waiting' END,
            settled_at = CASE
                WHEN r.state <> 'retry' OR o.attempts >= :give_up THEN :now END,
            due_at = :now + least(:first * power(2, least(o.attempts, 20) - 1), :longest),
            error = r.error
        FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS int[]), CAST(:states AS text[]),
                    CAST(:errors AS text[])) AS r (id, fence, state, error)
        WHERE o.id = r.id AND o.fence = r.fence AND o.state = 'waiting'
        """,
        ids=[result.id for result in results],
        fences=[leased.fences[result.id] for result in results],
        states=[result.state for result in results],
        errors=[result.error for result in results],
        give_up=GIVE_UP_AFTER,
        first=RETRY_FIRST,
        longest=RETRY_LONGEST,
    )
    return sum(result.state == "sent" for result in results)


def skip(tx: Tx, leased: Leased, reasons: dict[UUID, str]) -> None:
    """End leased messages whose reason to be sent is gone, with why."""
    tx.execute(
        """
        UPDATE keyturn.outbox o SET state = 'skipped', settled_at = :now, error = r.reason
        FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS int[]), CAST(:reasons AS text[]))
             AS r (id, fence, reason)
        WHERE o.id = r.id AND o.fence = r.fence AND o.state = 'waiting'
        """,
        ids=list(reasons),
        fences=[leased.fences[one] for one in reasons],
        reasons=list(reasons.values()),
    )
