"""Uses of stopped keys: refused and counted by `verify`, told to their owners at most once a day.

A mere use stops nothing: who uses a replaced key by mistake is more likely than a thief, and the
keys that replaced it are its owner's way on.
"""

from collections.abc import Sequence
from datetime import timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from . import outbox
from .base import Step, Tx
from .policy import Policy
from .statements import Row

TELL_EVERY = timedelta(days=1)
"""At most one alert in this time to one owner, however many of their keys are tried, and how."""

BATCH = 100
"""Owners that one transaction tells."""

# Only uses since the key was stopped for good: one that is merely disabled may be tried by its
# holder, and nobody is told of that. That most keys have no refused use is what the planner knows,
# so that it does not read them all to find that nobody is to be told.
_UNTOLD = """
    u.refused_at IS NOT NULL AND u.refused_at > coalesce(u.refused_told_at, '-infinity') AND (
        u.refused_at > k.deleted_at
        OR EXISTS (
            SELECT FROM keyturn.holds h
            WHERE h.key_id = k.id AND h.kind IN ('rotated', 'compromised')
              AND h.placed_at < u.refused_at AND h.lifted_at IS NULL))
"""
_QUIET = """
    NOT EXISTS (
        SELECT FROM keyturn.api_keys t JOIN keyturn.key_uses tu ON tu.key_id = t.id
        WHERE t.account_id = k.account_id AND tu.refused_told_at > :now - :every)
"""
_OWNERS = f"""
    SELECT DISTINCT k.account_id FROM keyturn.key_uses u
    JOIN keyturn.api_keys k ON k.id = u.key_id
    WHERE {_UNTOLD} AND {_QUIET} LIMIT :batch
"""
_TELL = f"""
    UPDATE keyturn.key_uses u SET refused_told_at = :now
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    WHERE u.key_id = k.id AND k.account_id = ANY(:owners) AND {_UNTOLD} AND {_QUIET}
    RETURNING k.id, k.account_id, a.email AS account, k.name, k.hint, k.status, u.refused_at,
        host(u.refused_ip) AS refused_ip,
        EXISTS (
            SELECT FROM keyturn.holds h WHERE h.key_id = k.id AND h.kind = 'compromised'
            AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL) AS compromised
"""


def tell(tx: Tx, policy: Policy) -> Step:
    """Tell one batch of owners whose deleted or retired keys were tried, and operators of all.

    A key that is known to others is the operators' business alone: its owner was told when it was
    stopped. Accounts that are busy are left to a later run.
    """
    found = tx.execute(_OWNERS, every=TELL_EVERY, batch=BATCH).scalars()
    owners = list(
        tx.execute(
            "SELECT id FROM keyturn.accounts WHERE id = ANY(:ids)"
            " ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
            ids=sorted(found),
        ).scalars()
    )
    rows = tx.rows(_TELL, owners=owners, every=TELL_EVERY) if owners else []
    rows = sorted(rows, key=lambda row: (row["account_id"], row["id"]))
    for account_id, of_owner in groupby(rows, key=lambda row: row["account_id"]):
        _tell_owner(tx, account_id, list(of_owner), policy)
    return Step(len(rows), finished=not rows)


def _tell_owner(tx: Tx, account_id: UUID, rows: Sequence[Row], policy: Policy) -> None:
    known = [row for row in rows if row["compromised"]]
    stopped = [row for row in rows if not row["compromised"]]
    account = rows[0]["account"]
    for alarm, of_kind in (("compromised_key_used", known), ("stopped_key_used", stopped)):
        if of_kind:
            tx.alarm(alarm, account=account, keys=[str(row["id"]) for row in of_kind[:20]])
    if stopped:
        payload = {
            "account": account,
            "keys": [_shown(row) for row in stopped[: policy.notice_keys]],
            "total": len(stopped),
        }
        outbox.add(tx, outbox.MAIL, "key.refused", payload, account_id=account_id)


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": str(row["id"]),
        "name": row["name"],
        "hint": row["hint"],
        "status": row["status"],
        "refused_at": row["refused_at"].isoformat(),
        "ip": row["refused_ip"],
    }
