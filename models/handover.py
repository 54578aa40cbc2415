"""How a holder gets the successor of a key: by showing the old one, once (rule 5.3)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from . import api_keys, outbox, roles
from .base import Tx
from .errors import NotFound, Refused
from .key_text import Peppers, Secret, read
from .policy import Policy
from .rotation_mails import mail
from .rotation_rows import Offered, offered
from .rotation_rules import UNREADABLE, Cancel, Rotation, decide
from .rotation_steps import note
from .sealing import BrokenSeal, Sealer, UnknownKek

BY_HOLDER = "by the holder of the old key"
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
) -> Claimed | Refused | UnknownKek | BrokenSeal:
    """The successor's text for whoever holds the old key; it is gone from here with the commit.

    What speaks against it is returned and not raised, since what it leaves behind must be
    committed, such as an alarm about a second claim: `key_unknown`, `no_rotation`,
    `rotation_cancelled`, `secret_gone`, `already_claimed`, `key_deleted`, `key_compromised`,
    `account_held`, `role_not_allowed`; or that the secret does not open, which leaves it there.
    """
    secret = read(old_text, policy.key_prefix)
    key_id = secret and api_keys.lock_by_text(tx, secret.reveal(), peppers)
    if not key_id:
        return NotFound(
            "key_unknown",
            "no key has this text: give the OLD key, whole and without anything around it",
        )
    found = offered(tx, key_id)
    if found is None:
        return Refused(
            "no_rotation",
            f"key {key_id} has no successor; `keyturn keys rotate {key_id}` makes one",
        )
    refusal = _refusal(found.rotation, policy, tx.now()) or _not_allowed(tx, found)
    if refusal is None:
        return _claimed(tx, found, actor, sealer)
    if refusal.code == "already_claimed":
        _alarm(tx, found.rotation, actor)
    return refusal


def _refusal(rotation: Rotation, policy: Policy, now: datetime) -> Refused | None:
    step = decide(rotation, policy, now)
    reason = step.reason if isinstance(step, Cancel) else rotation.cancel_reason
    if rotation.claimed_at is not None and reason is None:
        return _handed_over_before(rotation, rotation.claimed_at)
    unfit = _unfit(rotation)
    if unfit is not None or reason is None:
        return unfit or (None if rotation.claimable else _gone(rotation))
    again = f"`keyturn keys rotate {rotation.old_key_id}` starts a new rotation"
    if reason in ("unclaimed", "account_held"):
        return Refused("secret_gone", f"the new key was withdrawn, unclaimed ({reason}); {again}")
    return Refused("rotation_cancelled", f"the rotation was cancelled ({reason}); {again}")


def _handed_over_before(rotation: Rotation, at: datetime) -> Refused:
    if rotation.delivered_by is not None:
        said = (
            f"the new key was handed over by the sink {rotation.delivered_by!r}, at"
            f" {at:%Y-%m-%d %H:%M} UTC, and is to be found where that puts it; if it is not there,"
        )
    else:
        said = (
            f"the new key was fetched before, at {at:%Y-%m-%d %H:%M} UTC, and is shown once only;"
            " if that was not you, tell your operators at once; if its text was lost,"
        )
    mend = f"an operator runs `keyturn rotations reissue {rotation.id}`"
    return Refused("already_claimed", f"{said} {mend}")


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
        "the new key is in use already and its text is kept no more; if you do not have it, tell"
        f" your operators at once: `keyturn rotations show {rotation.id}`",
    )


def _not_allowed(tx: Tx, found: Offered) -> Refused | None:
    """Roles may have been narrowed since issue: nobody is handed more than they would be now."""
    if found.role_allowed:
        return None
    try:
        roles.check_grant(tx, found.rotation.role, found.rotation.account_id)
    except Refused as refused:
        return refused
    return None


def _claimed(
    tx: Tx, found: Offered, actor: str, sealer: Sealer
) -> Claimed | Refused | UnknownKek | BrokenSeal:
    rotation = found.rotation
    try:
        secret = hand_over(tx, found, actor=actor, sealer=sealer, why=BY_HOLDER)
    except (UnknownKek, BrokenSeal) as error:
        _unreadable(tx, rotation, actor, error)
        return error
    if secret is None:
        return _gone(rotation)
    return Claimed(
        secret=secret,
        rotation_id=rotation.id,
        key_id=rotation.new_key_id,
        name=rotation.name,
        expires_at=rotation.new_expires_at,
        old_key_id=rotation.old_key_id,
        old_expires_at=rotation.old_expires_at,
    )


def hand_over(tx: Tx, found: Offered, *, actor: str, sealer: Sealer, why: str) -> Secret | None:
    """Take the sealed text out of a rotation of a locked account; None where it is gone.

    Raises UnknownKek and BrokenSeal, and has changed nothing then.
    """
    rotation = found.rotation
    if found.sealed is None:
        return None
    secret = sealer.open(
        found.sealed,
        key_id=rotation.new_key_id,
        account_id=rotation.account_id,
        rotation_id=rotation.id,
    )
    taken = tx.count(
        """
        UPDATE keyturn.rotations
        SET claimed_at = :now, claimed_by = :by, sealed = NULL, sealed_kek = NULL,
            next_check_at = :old_end, blocked_reason = NULL
        WHERE id = :id AND state = 'issued' AND claimed_at IS NULL AND sealed IS NOT NULL
        """,
        id=rotation.id,
        by=actor,
        old_end=rotation.old_expires_at,
    )
    if not taken:
        return None
    note(tx, rotation, "claimed", actor=actor, why=why)
    return secret


def _unreadable(tx: Tx, rotation: Rotation, actor: str, error: Exception) -> None:
    """The secret stays, for a key-encryption key can be brought back; the rotation says so."""
    tx.execute(
        "UPDATE keyturn.rotations SET blocked_reason = :reason WHERE id = :id",
        id=rotation.id,
        reason=UNREADABLE,
    )
    if rotation.blocked_reason != UNREADABLE:
        note(tx, rotation, UNREADABLE, actor=actor, why=type(error).__name__)


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
        sink = rotation.delivered_by
        mail(tx, rotation, "claimed_again", priority=outbox.URGENT, sink=sink)
