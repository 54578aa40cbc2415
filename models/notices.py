"""Notices: owners hear of the end of their keys in time, once per threshold (rule 4).

A notice is an intent first: a row per key, end and threshold, whatever becomes of it. Intents are
put together to one message per account and run; the truth is read once more when it is sent.
Threshold 0 is the end itself.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from . import notice_ranges
from .base import Step, Tx
from .creation import LONGEST_VALIDITY
from .messages import Delivery, Outgoing
from .notice_ranges import Mark, Range
from .policy import Policy
from .predicate import HELD
from .statements import Row
from .tables import ROTATION_STATES, one_of

EXPIRING, EXPIRED = "notice.expiring", "notice.expired"

PAGE = 5000
"""Keys that one transaction of `plan` looks at."""
ACCOUNTS = 500
"""Accounts whose messages one transaction of `post` writes."""
_EVERYTHING = datetime(1, 1, 1, tzinfo=UTC), UUID(int=0), datetime(9999, 1, 1, tzinfo=UTC)
"""A page that begins before all keys, and the end of its range."""

_STOPPED = f"""
    CASE WHEN k.deleted_at IS NOT NULL THEN 'key_deleted'
         WHEN k.status = 'retired' OR EXISTS (
             SELECT FROM keyturn.rotations r WHERE r.old_key_id = k.id
             AND r.{one_of("state", tuple(s for s in ROTATION_STATES if s != "cancelled"))}
         ) THEN 'replaced'
         WHEN {HELD} THEN 'account_held'
         WHEN k.held THEN 'key_held' END
"""
"""Why the owner of a key `k` needs no notice of it, or NULL."""

_PLAN = """
WITH page AS MATERIALIZED (
    SELECT k.id, k.account_id, k.expires_at,
           floor(extract(epoch FROM k.expires_at - k.created_at))::bigint AS life,
           {stopped} AS stopped
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    WHERE {scope} AND (k.expires_at, k.id) > (:after_time, :after_id)
      AND k.expires_at <= :until
    ORDER BY k.expires_at, k.id LIMIT :page
), due AS (
    SELECT p.*, t.seconds, min(t.seconds) OVER (PARTITION BY p.id) AS most_urgent
    FROM page p CROSS JOIN LATERAL (
        SELECT s AS seconds FROM unnest(CAST(:thresholds AS bigint[])) AS s WHERE s * 2 <= p.life
        UNION ALL
        SELECT floor(p.life * CAST(:share AS float8))::bigint
        WHERE p.life >= :share_min_life AND p.life < :smallest * 2
        UNION ALL
        SELECT 0 WHERE p.life >= :share_min_life OR p.life >= :smallest * 2
    ) t
    WHERE p.expires_at <= :now + make_interval(secs => t.seconds)
), planned AS (
    INSERT INTO keyturn.notices
        (id, key_id, account_id, expires_at, threshold_seconds, state, reason, planned_at)
    SELECT gen_random_uuid(), id, account_id, expires_at, seconds,
           CASE WHEN seconds > most_urgent THEN 'superseded'
                WHEN stopped IS NOT NULL THEN 'skipped' ELSE 'planned' END,
           CASE WHEN seconds > most_urgent THEN NULL ELSE stopped END,
           :now
    FROM due d
    WHERE NOT EXISTS (
        SELECT FROM keyturn.notices n WHERE n.key_id = d.id
        AND n.expires_at = d.expires_at AND n.threshold_seconds = d.seconds
    )
    ON CONFLICT (key_id, expires_at, threshold_seconds) DO NOTHING
    RETURNING 1
)
SELECT (SELECT count(*) FROM planned) AS planned, (SELECT count(*) FROM page) AS seen,
       last.expires_at, last.id
FROM (SELECT) AS one
LEFT JOIN LATERAL (
    SELECT expires_at, id FROM page ORDER BY expires_at DESC, id DESC LIMIT 1
) last ON true
"""

_SMALLER = """
    EXISTS (
        SELECT FROM keyturn.notices s WHERE s.key_id = n.key_id
        AND s.expires_at = n.expires_at AND s.threshold_seconds < n.threshold_seconds
    )
"""

_LETTER = """
    jsonb_build_object(
        'account', a.email,
        'total', count(*),
        'threshold', CASE
            WHEN max(n.threshold_seconds) % 86400 = 0 THEN max(n.threshold_seconds) / 86400 || 'd'
            WHEN max(n.threshold_seconds) > 7200
                THEN ceil(max(n.threshold_seconds) / 3600.0) || 'h'
            WHEN max(n.threshold_seconds) > 120 THEN ceil(max(n.threshold_seconds) / 60.0) || 'm'
            ELSE max(n.threshold_seconds) || 's' END,
        'keys', jsonb_agg(
            jsonb_build_object('id', k.id, 'name', k.name, 'hint', k.hint,
                               'expires_at', k.expires_at)
            ORDER BY k.expires_at, k.id
        ) FILTER (WHERE n.place <= :names)
    )
"""
"""The payload of one message: the keys that end first by name, and how many there are."""

_POST = f"""
WITH unposted AS (
    SELECT id, key_id, account_id, threshold_seconds,
           CASE threshold_seconds WHEN 0 THEN '{EXPIRED}' ELSE '{EXPIRING}' END AS kind,
           row_number() OVER (
               PARTITION BY account_id, threshold_seconds = 0 ORDER BY expires_at, key_id
           ) AS place
    FROM keyturn.notices
    WHERE account_id = ANY(:accounts) AND state = 'planned' AND outbox_id IS NULL
), letters AS MATERIALIZED (
    SELECT gen_random_uuid() AS id, n.account_id, n.kind, {_LETTER} AS payload
    FROM unposted n
    JOIN keyturn.api_keys k ON k.id = n.key_id
    JOIN keyturn.accounts a ON a.id = n.account_id
    GROUP BY n.account_id, n.kind, a.email
), posted AS (
    INSERT INTO keyturn.outbox (id, channel, kind, account_id, payload, created_at, due_at)
    SELECT id, 'mail', kind, account_id, payload, :now, :now FROM letters
), linked AS (
    UPDATE keyturn.notices n SET outbox_id = l.id
    FROM unposted u JOIN letters l USING (account_id, kind)
    WHERE n.id = u.id
)
SELECT count(*) FROM letters
"""


@dataclass(frozen=True)
class Cursor:
    """How far a run of `plan` has got: the ranges left, and the last key in the first of them."""

    left: Sequence[Range]
    expires_at: datetime
    key_id: UUID
    mark: Mark


@dataclass(frozen=True)
class Page(Step):
    """What one page of `plan` did; the next one begins with its `after`."""

    after: Cursor | None


@dataclass(frozen=True)
class Notice:
    """An intent to tell an owner, and what became of it. `threshold` 0 is the end itself."""

    id: UUID
    account: str
    key_id: UUID
    name: str
    hint: str
    expires_at: datetime
    threshold: timedelta
    state: str
    reason: str | None
    planned_at: datetime
    outbox_id: UUID | None


def plan(tx: Tx, policy: Policy, after: Cursor | None) -> Page:
    """Write down the notices that are due of one page of keys; begin with `after` None.

    Pages go by the keys' ends: first those that have ended of late, then those that have passed a
    threshold since the last run. Only the most urgent threshold of a key is `planned`, larger ones
    are `superseded` at once; what needs no notice is `skipped`, with the reason. Two planners at
    once are harmless.
    """
    start = after or _beginning(*notice_ranges.begin(tx, policy))
    first = start.left[0]
    row = _run(tx, first.scope, policy, start.expires_at, start.key_id, first.until)
    following: Cursor | None = None
    if row["seen"] == PAGE:
        following = replace(start, expires_at=row["expires_at"], key_id=row["id"])
    elif left := start.left[1:]:
        following = _beginning(left, start.mark)
    else:
        notice_ranges.leave(tx, start.mark)
    return Page(row["planned"], following is None, following)


def _run(
    tx: Tx,
    scope: str,
    policy: Policy,
    after_time: datetime,
    after_id: UUID,
    until: datetime,
    **given: object,
) -> Row:
    smallest = min(policy.notice_thresholds, default=2 * LONGEST_VALIDITY)
    row = tx.row(
        _PLAN.format(stopped=_STOPPED, scope=scope),
        after_time=after_time,
        after_id=after_id,
        until=until,
        page=PAGE,
        thresholds=[_seconds(threshold) for threshold in policy.notice_thresholds],
        smallest=_seconds(smallest),
        share=policy.notice_last_share,
        share_min_life=_seconds(policy.notice_last_share_min_life),
        **given,
    )
    assert row is not None
    return row


def plan_keys(tx: Tx, ids: Sequence[UUID], policy: Policy) -> None:
    """Write down the notices that are due of some keys, in the transaction that added them.

    For keys that are older than their rows: of a threshold that they passed before, no range of
    `plan` knows.
    """
    if _run(tx, "k.id = ANY(:ids)", policy, *_EVERYTHING, ids=list(ids))["planned"]:
        tx.ring(notice_ranges.JOB)


def _beginning(left: Sequence[Range], mark: Mark) -> Cursor:
    return Cursor(left, left[0].after, UUID(int=0), mark)


def post(tx: Tx, policy: Policy) -> Step:
    """Put the planned notices of a batch of accounts into messages, until none is left.

    Run it when `plan` is through: that makes one message per account, kind and run. Notices that a
    death left between the two are posted by the next run.
    """
    accounts = tx.execute(
        """
        SELECT DISTINCT account_id FROM keyturn.notices
        WHERE state = 'planned' AND outbox_id IS NULL ORDER BY account_id LIMIT :batch
        """,
        batch=ACCOUNTS,
    ).scalars()
    found = list(accounts)
    if not found:
        return Step(0, finished=True)
    tx.execute(
        """
        SELECT FROM keyturn.notices
        WHERE account_id = ANY(:accounts) AND state = 'planned' AND outbox_id IS NULL
        ORDER BY id FOR UPDATE
        """,
        accounts=found,
    )
    tx.execute(
        f"""
        UPDATE keyturn.notices n SET state = 'superseded'
        WHERE account_id = ANY(:accounts) AND state = 'planned' AND outbox_id IS NULL
          AND {_SMALLER}
        """,
        accounts=found,
    )
    posted: int = tx.scalar(_POST, accounts=found, names=policy.notice_keys)
    if posted:
        tx.ring("outbox.deliver")
    return Step(posted, finished=len(found) < ACCOUNTS)


def refresh(tx: Tx, messages: Sequence[Outgoing]) -> tuple[list[Outgoing], dict[UUID, str]]:
    """Read the truth again just before sending: what to send, and what to skip with why.

    Keys that were meanwhile held, replaced, deleted, or of which a more urgent notice is on its
    way, leave their message; so do those that ended before it said they would. A message without
    keys is skipped. Messages of other kinds pass as they are.
    """
    named = {m.id: _named(m) for m in messages if m.kind in (EXPIRING, EXPIRED)}
    if not named:
        return list(messages), {}
    ours = list(named)
    _drop_untrue(tx, ours)
    rows = tx.rows(
        f"""
        WITH n AS (
            SELECT outbox_id, account_id, key_id, threshold_seconds, row_number() OVER (
                PARTITION BY outbox_id ORDER BY expires_at, key_id) AS place
            FROM keyturn.notices WHERE outbox_id = ANY(:ids) AND state = 'planned'
        )
        SELECT n.outbox_id, {_LETTER} AS payload
        FROM n
        JOIN keyturn.api_keys k ON k.id = n.key_id
        JOIN keyturn.accounts a ON a.id = n.account_id
        GROUP BY n.outbox_id, a.email
        """,
        ids=ours,
        names=max(named.values()),  # a message that names fewer keys has no more of them
    )
    payloads = {row["outbox_id"]: row["payload"] for row in rows}
    skipped = _why_empty(tx, [message for message in ours if message not in payloads])
    to_send = [
        replace(message, payload=payloads[message.id]) if message.id in payloads else message
        for message in messages
        if message.id not in skipped
    ]
    return to_send, skipped


def delivered(tx: Tx, deliveries: Iterable[Delivery]) -> int:
    """Mark the notices of messages that were settled, sent or given up, in the same transaction.

    Call it after `outbox.settle`: what counts is what became of the message. Returns how many
    notices were marked.
    """
    return tx.count(
        """
        UPDATE keyturn.notices n SET state = o.state, reason = o.error
        FROM keyturn.outbox o
        WHERE n.outbox_id = o.id AND n.state = 'planned'
          AND o.id = ANY(:ids) AND o.state IN ('sent', 'failed')
        """,
        ids=[delivery.id for delivery in deliveries],
    )


def listed(
    tx: Tx, *, account_id: UUID | None = None, state: str | None = None, limit: int = 1000
) -> list[Notice]:
    """Notices, the newest first; of one account or state."""
    conditions, params = ["true"], dict[str, object]()
    if account_id is not None:
        conditions.append("n.account_id = :account")
        params["account"] = account_id
    if state is not None:
        conditions.append("n.state = :state")
        params["state"] = state
    rows = tx.rows(
        f"""
        SELECT n.id, a.email AS account, n.key_id, k.name, k.hint, n.expires_at,
               make_interval(secs => n.threshold_seconds) AS threshold,
               n.state, n.reason, n.planned_at, n.outbox_id
        FROM keyturn.notices n
        JOIN keyturn.api_keys k ON k.id = n.key_id
        JOIN keyturn.accounts a ON a.id = n.account_id
        WHERE {" AND ".join(conditions)}
        ORDER BY n.planned_at DESC, n.expires_at, n.key_id, n.threshold_seconds LIMIT :limit
        """,
        limit=limit,
        **params,
    )
    return [Notice(**row) for row in rows]


def _drop_untrue(tx: Tx, message_ids: Sequence[UUID]) -> None:
    tx.execute(
        f"""
        WITH now_known AS (
            SELECT n.id, CASE
                WHEN {_SMALLER} THEN 'superseded' ELSE {_STOPPED} END AS stopped,
                n.threshold_seconds > 0 AND k.expires_at <= :now AS ended
            FROM keyturn.notices n
            JOIN keyturn.api_keys k ON k.id = n.key_id
            JOIN keyturn.accounts a ON a.id = n.account_id
            WHERE n.outbox_id = ANY(:ids) AND n.state = 'planned'
        )
        UPDATE keyturn.notices n
        SET state = CASE stopped WHEN 'superseded' THEN 'superseded' ELSE 'skipped' END,
            reason = CASE stopped WHEN 'superseded' THEN NULL
                     ELSE coalesce(stopped, 'key_expired') END
        FROM now_known
        WHERE n.id = now_known.id AND (stopped IS NOT NULL OR ended)
        """,
        ids=list(message_ids),
    )


def _why_empty(tx: Tx, message_ids: Sequence[UUID]) -> dict[UUID, str]:
    """Why messages have no key left; one that never had any notice says so."""
    rows = tx.rows(
        """
        SELECT outbox_id, string_agg(DISTINCT coalesce(reason, state), ', ') AS why
        FROM keyturn.notices WHERE outbox_id = ANY(:ids) GROUP BY outbox_id
        """,
        ids=list(message_ids),
    )
    reasons = {row["outbox_id"]: row["why"] for row in rows}
    return {message: reasons.get(message, "nothing_left") for message in message_ids}


def _named(message: Outgoing) -> int:
    keys = message.payload["keys"]
    assert isinstance(keys, list)
    return len(keys)


def _seconds(duration: timedelta) -> int:
    return int(duration.total_seconds())
