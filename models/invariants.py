"""Whether the promises are kept: each is a query over one snapshot that must find nothing.

`check` looks at everything (`full`), or at what may have changed: the keys and accounts of the
newest audit entries, those that time has just reached, and a random sample of all keys. So every
key is looked at again and again, at the cost of a few thousand, however many there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from .base import Database, Tx
from .compromise_promises import OF_COMPROMISES
from .creation import LONGEST_VALIDITY
from .operation_promises import OF_OPERATIONS
from .policy import Policy
from .promises import OF_AUDIT, OF_KEYS, OF_MESSAGES, Promise
from .rotation_promises import OF_ROTATIONS
from .tables import ROTATION_LIVE, one_of

PROMISES: Sequence[Promise] = (
    *OF_KEYS,
    *OF_MESSAGES,
    *OF_ROTATIONS,
    *OF_COMPROMISES,
    *OF_OPERATIONS,
    *OF_AUDIT,
)

SHOWN = 20
"""Ids that a violation names; it counts all."""

WINDOW = 5000
"""Audit entries, and inbox rows, that a check which is not full goes back."""
SAMPLE_PAGES = 200
"""Pages of keys that it takes at random, of 8 KiB and some 25 keys each."""
REACHED = 1000
"""Keys, per kind of deadline, that time has reached."""

TIMEOUT, FULL_TIMEOUT = timedelta(seconds=5), timedelta(minutes=15)
"""The longest that one query may run; all of a scheduled check end within its lease."""


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """How long what is on its way may look broken."""

    in_flight: timedelta = timedelta(seconds=60)
    """From a transaction's instant to its commit, or an answer's to the record of the use."""
    settle: timedelta = timedelta(seconds=60)
    """From what stops or frees a key to its status."""
    event: timedelta = timedelta(minutes=5)
    rotation: timedelta = timedelta(minutes=5)
    operation: timedelta = timedelta(minutes=5)
    notice: timedelta = timedelta(hours=2)
    message: timedelta = timedelta(minutes=5)

    @classmethod
    def of(cls, schedule: Mapping[str, timedelta]) -> "Tolerance":
        """The defaults, or two rests of the flow in question where that is longer."""

        def least(default: timedelta, flow: str) -> timedelta:
            return max(default, 2 * schedule.get(flow, timedelta(0)))

        return cls(
            settle=max(least(cls.settle, "keys.settle"), least(cls.settle, "keys.expire_due")),
            event=least(cls.event, "accounts.apply_events"),
            rotation=max(
                least(cls.rotation, "rotations.advance"),
                least(cls.rotation, "rotations.start_due"),
            ),
            operation=least(cls.operation, "operations.advance"),
            notice=least(cls.notice, "notices.plan"),
            message=least(cls.message, "outbox.deliver"),
        )


@dataclass(frozen=True)
class Violation:
    """A promise that is broken: by how many rows, and the first of their ids."""

    name: str
    sentence: str
    count: int
    rows: tuple[str, ...]


def check(
    database: Database, policy: Policy, *, full: bool = False, tolerance: Tolerance | None = None
) -> list[Violation]:
    """The promises that are broken now, by one snapshot; it writes nothing and locks nothing.

    Raises the driver's error where a query takes longer than its timeout.
    """
    timeout = FULL_TIMEOUT if full else TIMEOUT
    params = _allowed(tolerance or Tolerance()) | _warned(policy)
    with database.begin() as tx:
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tx.execute(f"SET LOCAL statement_timeout = {int(timeout.total_seconds() * 1000)}")
        tx.execute("SET LOCAL jit = off")  # compiling these takes longer than running them
        where = _EVERYTHING if full else _CHANGED
        if not full:
            params |= _scope(tx, params)
        found = [_broken(tx, promise, where, params) for promise in PROMISES]
    return [violation for violation in found if violation.count]


def _broken(
    tx: Tx, promise: Promise, where: Mapping[str, str], params: Mapping[str, Any]
) -> Violation:
    row = tx.row(
        f"""
        WITH broken (id) AS MATERIALIZED ({promise.query.format(**where)})
        SELECT (SELECT count(*) FROM broken) AS count,
               ARRAY(SELECT CAST(id AS text) FROM broken ORDER BY id LIMIT {SHOWN}) AS rows
        """,
        **params,
    )
    assert row is not None
    return Violation(promise.name, promise.sentence, row["count"], tuple(row["rows"]))


def _allowed(tolerance: Tolerance) -> dict[str, Any]:
    return {name: getattr(tolerance, name) for name in Tolerance.__dataclass_fields__}


def _warned(policy: Policy) -> dict[str, Any]:
    return {
        "thresholds": [int(one.total_seconds()) for one in policy.notice_thresholds],
        "furthest": max(policy.notice_thresholds, default=LONGEST_VALIDITY),
        "share": policy.notice_last_share,
        "share_min_life": int(policy.notice_last_share_min_life.total_seconds()),
    }


_CHANGED = {
    "keys": "k.id = ANY(:keys)",
    "key_entries": "e.key_id = ANY(:keys)",
    "held_keys": "h.key_id = ANY(:keys)",
    "noticed": "n.key_id = ANY(:keys)",
    "operated": "p.key_id = ANY(:keys)",
    "accounts": "a.id = ANY(:accounts)",
    "account_entries": "(e.key_id IS NULL AND e.account_id = ANY(:accounts))",
    "held_accounts": "h.account_id = ANY(:accounts)",
    "held_tenants": "h.tenant_id = ANY(:accounts)",
    "tenants": "t.id = ANY(:accounts)",
    "families": "k.family_id = ANY(:families)",
    "rotated_families": "r.family_id = ANY(:families)",
    "rotations": "(r.old_key_id = ANY(:keys) OR r.new_key_id = ANY(:keys))",
    "inbox": "i.id > :inbox",
    "seals": "s.number = ANY(:seals)",
}
_EVERYTHING = dict.fromkeys(_CHANGED, "true") | {
    "key_entries": "e.key_id IS NOT NULL",
    "account_entries": "e.key_id IS NULL",
    "held_accounts": "h.account_id IS NOT NULL",
    "held_tenants": "h.tenant_id IS NOT NULL",
    "held_keys": "h.key_id IS NOT NULL",
}

_RECENT = "SELECT account_id, key_id FROM keyturn.audit ORDER BY id DESC LIMIT :window"
_ENDS = "status NOT IN ('expired', 'deleted')"
_KEYS = f"""
    WITH recent AS MATERIALIZED ({_RECENT})
    SELECT ARRAY(
        SELECT key_id FROM recent WHERE key_id IS NOT NULL
        UNION
        (SELECT k.id FROM (SELECT DISTINCT account_id FROM recent WHERE key_id IS NULL) touched
         JOIN keyturn.api_keys k USING (account_id) LIMIT :window)
        UNION
        (SELECT k.id FROM (SELECT DISTINCT account_id FROM recent WHERE key_id IS NULL) touched
         JOIN keyturn.accounts a ON a.tenant_id = touched.account_id
         JOIN keyturn.api_keys k ON k.account_id = a.id LIMIT :window)
        UNION
        SELECT id FROM keyturn.api_keys TABLESAMPLE SYSTEM (
            least(100, 100.0 * :pages * 8192 / greatest(1, pg_relation_size('keyturn.api_keys'))))
        UNION
        (SELECT id FROM keyturn.api_keys WHERE {_ENDS} AND expires_at <= :now
         ORDER BY expires_at LIMIT :reached)
        UNION
        SELECT near.id FROM unnest(CAST(:thresholds AS bigint[])) AS s CROSS JOIN LATERAL (
            SELECT id FROM keyturn.api_keys
            WHERE {_ENDS} AND expires_at <= :now + s * interval '1 second' - :notice
            ORDER BY expires_at DESC LIMIT :reached) near
        UNION
        (SELECT old_key_id FROM keyturn.rotations WHERE {one_of("state", ROTATION_LIVE)}
         ORDER BY next_check_at LIMIT :reached)
    )
"""
_ACCOUNTS = f"""
    SELECT ARRAY(
        SELECT account_id FROM ({_RECENT}) recent WHERE account_id IS NOT NULL
        UNION SELECT account_id FROM keyturn.api_keys WHERE id = ANY(:keys)
        UNION SELECT a.tenant_id FROM keyturn.api_keys k JOIN keyturn.accounts a
            ON a.id = k.account_id WHERE k.id = ANY(:keys) AND a.tenant_id IS NOT NULL
    )
"""
_FAMILIES = "SELECT ARRAY(SELECT DISTINCT family_id FROM keyturn.api_keys WHERE id = ANY(:keys))"
_SEALS = """
    SELECT ARRAY(
        SELECT newest - back FROM generate_series(0, 1) AS back
        UNION SELECT CAST(1 + floor(random() * newest) AS bigint)
    )
    FROM (SELECT CAST(max(number) AS bigint) AS newest FROM keyturn.audit_seals) seals
"""


def _scope(tx: Tx, params: Mapping[str, Any]) -> dict[str, Any]:
    """What a check that is not full looks at: ids of keys, families, accounts and tenants."""
    bounds = {"window": WINDOW, "pages": SAMPLE_PAGES, "reached": REACHED}
    keys: list[UUID] = tx.scalar(_KEYS, **bounds, **params)
    newest: int = tx.scalar("SELECT coalesce(max(id), 0) FROM keyturn.inbox")
    return {
        "keys": keys,
        "accounts": tx.scalar(_ACCOUNTS, keys=keys, **bounds),
        "families": tx.scalar(_FAMILIES, keys=keys),
        "inbox": newest - WINDOW,
        "seals": tx.scalar(_SEALS),
    }
