"""Who changed what, and why. Entries are only ever added."""

from uuid import UUID

from .base import Tx


def record(
    tx: Tx,
    actor: str,
    action: str,
    *,
    account_id: UUID | None = None,
    key_id: UUID | None = None,
    version: int | None = None,
    before: str | None = None,
    after: str | None = None,
    why: str | None = None,
) -> None:
    """Add one entry. `version` is the key's new version where its state changed."""
    tx.execute(
        """
        INSERT INTO keyturn.audit
            (at, actor, action, account_id, key_id, version, before, after, why)
        VALUES (:now, :actor, :action, :account, :key, :version, :before, :after, :why)
        """,
        actor=actor,
        action=action,
        account=account_id,
        key=key_id,
        version=version,
        before=before,
        after=after,
        why=why,
    )
