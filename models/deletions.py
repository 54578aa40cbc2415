"""What is irreversible, after its time: keys of deleted accounts are deleted, old rows purged."""

from . import api_keys, audit, holds
from .base import Step, Tx
from .policy import Policy
from .tables import DELETION_OPEN

_DUE = f"{DELETION_OPEN} AND h.placed_at <= :now - :delay"
_DOOMED = "(h.account_id = a.id OR h.tenant_id = a.tenant_id AND a.tenant_since < h.placed_at)"
_HAS_KEYS = """
    EXISTS (SELECT FROM keyturn.api_keys k WHERE k.account_id = a.id AND k.deleted_at IS NULL)
"""
_FIND = f"""
    (SELECT h.account_id, h.tenant_id FROM keyturn.holds h
     WHERE {_DUE} AND h.account_id IS NOT NULL ORDER BY h.placed_at LIMIT :accounts)
    UNION
    (SELECT a.id, h.tenant_id FROM keyturn.holds h JOIN keyturn.accounts a ON {_DOOMED}
     WHERE {_DUE} AND h.tenant_id IS NOT NULL AND {_HAS_KEYS} LIMIT :accounts)
"""
_CARRIED_OUT_ON_TENANTS = f"""
    UPDATE keyturn.holds h SET carried_out_at = :now
    WHERE {_DUE} AND h.tenant_id IS NOT NULL
      AND NOT EXISTS (SELECT FROM keyturn.accounts a WHERE {_DOOMED} AND {_HAS_KEYS})
"""
ACCOUNTS = 100
"""Accounts that one transaction locks."""


def step(tx: Tx, policy: Policy) -> Step:
    """Delete one batch of keys of accounts whose hold `deleted` has stood for its whole delay.

    That of a tenant counts for those who were in it when it was placed: whoever came later is held,
    and keeps its keys.

    A hold of a source that cut unusually many accounts waits until an operator confirms it
    (rule 2.8). The hold is read again under the lock of its account or tenant: it may have been
    lifted. One of which nothing is left to delete is carried out, and no run looks at it again:
    keys cannot be added while it stands.
    """
    due = tx.rows(_FIND, delay=policy.deletion_delay, accounts=ACCOUNTS)
    if not due:
        carried_out = tx.count(_CARRIED_OUT_ON_TENANTS, delay=policy.deletion_delay)
        return Step(0, finished=not carried_out)
    found = list({row["account_id"] for row in due})
    holds.lock_tenants(tx, [row["tenant_id"] for row in due if row["tenant_id"]])
    holds.lock_accounts(tx, found)
    ids = list(
        tx.execute(
            f"""
            SELECT k.id FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
            WHERE a.id = ANY(:locked) AND k.deleted_at IS NULL
              AND EXISTS (SELECT FROM keyturn.holds h WHERE {_DOOMED} AND {_DUE})
            ORDER BY k.id LIMIT :batch
            """,
            delay=policy.deletion_delay,
            locked=found,
            batch=policy.settle_batch,
        ).scalars()
    )
    deleted = api_keys.delete_all(tx, ids, actor="keyturn", why="account_deleted", policy=policy)
    if len(ids) < policy.settle_batch:
        tx.execute(
            f"""
            UPDATE keyturn.holds h SET carried_out_at = :now
            WHERE h.account_id = ANY(:locked) AND {_DUE}
            """,
            delay=policy.deletion_delay,
            locked=found,
        )
    return Step(deleted, finished=False)


def unconfirmed(tx: Tx, source: str) -> list[str]:
    """The e-mail addresses of accounts whose deletion by this source waits for an operator."""
    found = tx.execute(
        f"""
        SELECT a.email FROM keyturn.holds h JOIN keyturn.accounts a ON {_DOOMED}
        WHERE h.source = :source AND h.confirm AND h.lifted_at IS NULL ORDER BY a.email
        """,
        source=source,
    )
    return list(found.scalars())


def confirm_source(tx: Tx, source: str, *, actor: str) -> int:
    """Let a source's deletions go on that had waited for an operator; returns how many."""
    confirmed = tx.count(
        "UPDATE keyturn.holds SET confirm = false, confirmed_at = :now"
        " WHERE source = :source AND confirm",
        source=source,
    )
    if confirmed:
        why = f"{confirmed} deletions of {source}"
        audit.record(tx, actor, "source.confirmed", why=why)
    return confirmed


def purge(tx: Tx, policy: Policy, batch: int = 5000) -> int:
    """Shrink the rows of keys that were deleted long enough ago to tombstones.

    What stays is what proves that there was such a key, and refuses its text: id, digest, account,
    dates and family. Returns how many shrank.
    """
    purged = list(
        tx.execute(
            """
            UPDATE keyturn.api_keys SET name = '', created_by = '', hint = '', allowed_ips = NULL
            WHERE id IN (
                SELECT id FROM keyturn.api_keys
                WHERE deleted_at <= :now - :kept AND created_by <> ''
                LIMIT :batch FOR NO KEY UPDATE SKIP LOCKED)
            RETURNING id
            """,
            kept=policy.purge_after,
            batch=batch,
        ).scalars()
    )
    tx.execute("DELETE FROM keyturn.key_uses WHERE key_id = ANY(:ids)", ids=purged)
    return len(purged)


def forget_sent(tx: Tx, policy: Policy, batch: int = 5000) -> int:
    """Remove outgoing messages that were settled long enough ago."""
    return tx.count(
        """
        DELETE FROM keyturn.outbox WHERE id IN (
            SELECT id FROM keyturn.outbox
            WHERE state IN ('sent', 'skipped') AND settled_at < :now - :kept
            LIMIT :batch)
        """,
        kept=policy.settled_kept,
        batch=batch,
    )
