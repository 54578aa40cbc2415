"""How a holder gets the successor of a key: by showing the old one, once (rule 5.3)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from . import api_keys, holds, outbox
from .base import Tx
from .errors import NotFound, Refused
from .key_text import Peppers, Secret, parse
from .policy import Policy
from .rotation_rules import Cancel, Rotation, decide
from .rotation_steps import mail, note, select
from .sealing import Sealed, Sealer

ALARM_PAUSE = timedelta(hours=1)
"""Each try of a script that claims again and again is audited; its owner gets one mail an hour."""


@dataclass(frozen=True)
class Claimed:
    """The successor of a key, shown this once. Times are UTC."""

    secret: Secret
    rotation_id: UUID
    key_id: UUID
    name: str
    expires_at: datetime
    old_key_id: UUID
    old_expires_at: datetime


def claim(
    tx: Tx, old_text: str, *, actor: str, policy: Policy, sealer: Sealer, peppers: Peppers
) -> Claimed | Refused:
    """The successor's text for whoever holds the old key; it is gone from here with the commit.

    A refusal is returned and not raised, since an alarm about a second claim must be committed:
    `key_unknown`, `no_rotation`, `rotation_cancelled`, `secret_gone`, `already_claimed`,
    `key_deleted`, `key_compromised`, `account_held`. Raises what `Sealer.open` raises.
    """
    parsed = parse(old_text)
    key = parsed and api_keys.by_text(tx, parsed.secret.reveal(), peppers)
    if not key:
        return NotFound(
            "key_unknown",
            "no key has this text: give the OLD key, whole and without anything around it",
        )
    holds.lock_accounts(tx, [key.account_id])
    found = select(
        tx, "r.old_key_id = :key ORDER BY r.issued_at DESC, r.id DESC LIMIT 1", key=key.id
    )
    if not found:
        return Refused(
            "no_rotation",
            f"key {key.id} has no successor; `keyturn keys rotate {key.id}` makes one",
        )
    rotation = found[0]
    refusal = _refusal(rotation, policy, tx.now())
    if refusal is None:
        return _hand_over(tx, rotation, actor, sealer)
    if refusal.code == "already_claimed":
        _alarm(tx, rotation, actor)
    return refusal


def _refusal(rotation: Rotation, policy: Policy, now: datetime) -> Refused | None:
    step = decide(rotation, policy, now)
    reason = step.reason if isinstance(step, Cancel) else rotation.cancel_reason
    if rotation.claimed_at is not None and reason is None:
        return Refused(
            "already_claimed",
            f"the new key was fetched before, at {rotation.claimed_at:%Y-%m-%d %H:%M} UTC, and is"
            " shown once only; if that was not you, tell your operators at once",
        )
    unfit = _unfit(rotation)
    if unfit is not None or reason is None:
        return unfit or (None if rotation.claimable else _gone(rotation))
    again = f"`keyturn keys rotate {rotation.old_key_id}` starts a new rotation"
    if reason in ("unclaimed", "account_held"):
        return Refused("secret_gone", f"the new key was withdrawn, unclaimed ({reason}); {again}")
    return Refused("rotation_cancelled", f"the rotation was cancelled ({reason}); {again}")


def _unfit(rotation: Rotation) -> Refused | None:
    if rotation.old_deleted_at is not None:
        return Refused("key_deleted", "the old key was deleted; have a new key created")
    if rotation.old_compromised:
        return Refused(
            "key_compromised",
            "the old key is known to others and proves nothing; ask an operator for its successor",
        )
    if rotation.account_held:
        return Refused(
            "account_held", f"the account {rotation.account} is disabled; have it enabled first"
        )
    return None


def _gone(rotation: Rotation) -> Refused:
    return Refused(
        "secret_gone",
        "the new key is in use already and its text is kept no more; if you do not have it,"
        f" ask an operator to cancel rotation {rotation.id} and to rotate again",
    )


def _hand_over(tx: Tx, rotation: Rotation, actor: str, sealer: Sealer) -> Claimed | Refused:
    row = tx.row(
        """
        WITH kept AS (SELECT id, sealed, sealed_kek FROM keyturn.rotations WHERE id = :id)
        UPDATE keyturn.rotations r
        SET claimed_at = :now, sealed = NULL, sealed_kek = NULL, next_check_at = :old_end
        FROM kept
        WHERE r.id = kept.id AND r.state = 'issued' AND r.claimed_at IS NULL
          AND r.sealed IS NOT NULL
        RETURNING kept.sealed, kept.sealed_kek
        """,
        id=rotation.id,
        old_end=rotation.old_expires_at,
    )
    if row is None:
        return _gone(rotation)
    secret = sealer.open(
        Sealed(row["sealed_kek"], row["sealed"]),
        key_id=rotation.new_key_id,
        account_id=rotation.account_id,
        rotation_id=rotation.id,
    )
    note(tx, rotation, "claimed", actor=actor, why="by the holder of the old key")
    return Claimed(
        secret=secret,
        rotation_id=rotation.id,
        key_id=rotation.new_key_id,
        name=rotation.name,
        expires_at=rotation.new_expires_at,
        old_key_id=rotation.old_key_id,
        old_expires_at=rotation.old_expires_at,
    )


def _alarm(tx: Tx, rotation: Rotation, actor: str) -> None:
    """A thief may have been first: the second claim is written down, and the owner is asked."""
    note(tx, rotation, "claimed_again", actor=actor, why="by a holder of the old key")
    due = tx.count(
        """
        UPDATE keyturn.rotations SET alarmed_at = :now
        WHERE id = :id AND (alarmed_at IS NULL OR alarmed_at <= :now - :pause)
        """,
        id=rotation.id,
        pause=ALARM_PAUSE,
    )
    if due:
        mail(tx, rotation, "claimed_again", priority=outbox.URGENT)
