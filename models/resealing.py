"""Sealed secrets move to the current key-encryption key, so that an older one may go at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from .base import Step, Tx
from .sealing import BrokenSeal, Sealed, Sealer

BATCH = 200
"""Secrets that one transaction seals anew."""


@dataclass(frozen=True)
class Resealed(Step):
    """What one batch did. `after` is where the next one goes on, `broken` the rotations of which a
    secret cannot be opened: they stay as they are."""

    after: UUID
    broken: Sequence[UUID]


FIRST = UUID(int=0)
"""Where a run begins."""


def step(tx: Tx, sealer: Sealer, after: UUID = FIRST) -> Resealed:
    """Seal one batch of secrets anew, in the order of their rotations' ids.

    Only what is sealed under an older version than the current one, and one that is at hand: so two
    machines of which one is ahead never undo each other's work. A row that somebody claims or ends
    at this moment is passed over, and what they do goes first.
    """
    older = [version for version in sealer.versions if version < sealer.current]
    rows = tx.rows(
        """
        SELECT id, new_key_id, account_id, sealed, sealed_kek FROM keyturn.rotations
        WHERE sealed_kek = ANY(:older) AND id > :after ORDER BY id LIMIT :batch
        FOR NO KEY UPDATE SKIP LOCKED
        """,
        older=older,
        after=after,
        batch=BATCH,
    )
    broken = []
    changed = 0
    for row in rows:
        bound = {
            "key_id": row["new_key_id"],
            "account_id": row["account_id"],
            "rotation_id": row["id"],
        }
        try:
            secret = sealer.open(Sealed(row["sealed_kek"], row["sealed"]), **bound)
        except BrokenSeal:
            broken.append(row["id"])
            continue
        sealed = sealer.seal(secret, **bound)
        changed += tx.count(
            """
            UPDATE keyturn.rotations SET sealed = :box, sealed_kek = :kek
            WHERE id = :id AND state = 'issued' AND sealed = :before
            """,
            id=row["id"],
            box=sealed.box,
            kek=sealed.kek,
            before=row["sealed"],
        )
    return Resealed(changed, not rows, rows[-1]["id"] if rows else after, tuple(broken))
