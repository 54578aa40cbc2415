"""Keys whose text others are known to have: found by the digest of it, and stopped at once."""

from collections.abc import Collection
from dataclasses import dataclass
from uuid import UUID

from . import compromise
from .base import Tx
from .holds import Cause
from .key_text import Peppers, digest_of_hash
from .policy import Policy


@dataclass(frozen=True)
class LeakedKey:
    """What is to be known of a key that a report names."""

    id: UUID
    account_id: UUID
    deleted: bool


def keys(tx: Tx, sha256: Collection[str], peppers: Peppers | None) -> dict[str, LeakedKey]:
    """The keys whose texts have these SHA-256 (hexadecimal digits), by it, as far as there are any.

    A key is stored under one of the peppers, or was imported by the bare SHA-256 (rule 1.1).
    """
    if not sha256:
        return {}
    if peppers is None:
        raise ValueError("a report of a leaked key cannot be read without the peppers")
    stored = {bytes.fromhex(one): one for one in sha256} | {
        digest_of_hash(bytes.fromhex(one), peppers[version]): one
        for one in sha256
        for version in peppers.versions
    }
    rows = tx.rows(
        """
        SELECT id, account_id, digest, deleted_at IS NOT NULL AS deleted
        FROM keyturn.api_keys WHERE digest = ANY(:digests)
        """,
        digests=list(stored),
    )
    return {
        stored[bytes(row["digest"])]: LeakedKey(row["id"], row["account_id"], row["deleted"])
        for row in rows
    }


def stop(tx: Tx, key: LeakedKey, *, source: str, reason: str, policy: Policy) -> bool:
    """Hold a key of a locked account as compromised. False where this source did before.

    Whether a successor follows says the key's rotation policy.
    """
    kind = compromise.KIND
    cause = Cause(source=source, kind=kind, actor=f"source:{source}", reason=reason)
    issue = compromise.wants_successor(tx, key.id, policy)
    return compromise.stop(tx, key.id, cause, issue=issue, policy=policy)
