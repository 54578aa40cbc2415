"""Issuing successors: whoever asks gets the rotation that is there, or a new one (rule 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from . import accounts, api_keys, hand_overs, roles
from .api_keys import ApiKey
from .base import Tx
from .errors import Refused
from .identity import new_id
from .key_text import Peppers, mint
from .policy import DAY, Policy
from .rotation_mails import mail
from .rotation_rows import one, select
from .rotation_rules import Complete, Reason, Rotation, claim_deadline
from .rotation_steps import bring_up_to_date, note, take
from .sealing import Sealer
from .tables import ROTATION_OPEN, one_of


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is written down of who asked for a rotation, and why."""

    actor: str
    reason: Reason = "requested"
    idempotency_key: str | None = None
    operation_id: UUID | None = None


def request(
    tx: Tx,
    key_id: UUID,
    *,
    idempotency_key: str | None = None,
    actor: str,
    policy: Policy,
    sealer: Sealer,
    peppers: Peppers,
    reason: Reason = "requested",
    operation_id: UUID | None = None,
    tell_owner: bool = True,
    most_a_day: int | None = None,
) -> Rotation:
    """Issue the successor of a key, sealed for its holder; the old key goes on working.

    The same request twice (`idempotency_key`), any request while the family is in rotation, and any
    for a key that was rotated, is the rotation that is there: never a third key. Without
    `tell_owner` the caller tells them. With `most_a_day` the family has no more new rotations than
    that in a day (`too_many_rotations`).
    Refused as `key_unknown`, `key_deleted`, `key_expired`, `key_held`, `account_held`,
    `too_short_lived`, `role_not_allowed`, `idempotency_key_used`.
    """
    key = api_keys.locked(tx, str(key_id))
    if (known := _asked_before(tx, key, idempotency_key)) is not None:
        return known
    related = _related(tx, key)
    for rotation in related:
        if rotation.state in ROTATION_OPEN:  # one at most
            rotation = bring_up_to_date(tx, rotation, policy)
            if rotation.state in ROTATION_OPEN:
                return rotation
            # What was due just now may have stopped or ended the key.
            key, related = api_keys.find(tx, str(key_id)), _related(tx, key)
    if (before := _rotated_before(tx, key, related)) is not None:
        return before
    check(tx, key, policy)
    if most_a_day is not None:
        _check_rate(tx, key, most_a_day)
    asked = Asked(
        actor=actor, reason=reason, idempotency_key=idempotency_key, operation_id=operation_id
    )
    _end_undo(tx, key, related, actor=actor, policy=policy)
    rotation = issue(tx, key, asked, policy=policy, peppers=peppers, sealer=sealer)
    if tell_owner:
        tell_issued(tx, rotation)
    return rotation


def replace_compromised(
    tx: Tx, key: ApiKey, *, actor: str, policy: Policy, peppers: Peppers, sealer: Sealer
) -> Rotation:
    """Issue the successor of a locked key that is held as compromised (rule 5.9).

    The leaked key proves nothing: nobody can claim with it, and whoever asked is handed the
    successor by the caller, who tells the owner too. What led to or from the key was withdrawn
    before. Refused as `request` is, but for the hold, and as `already_replaced` where a successor
    of the key is in use.
    """
    stands = "r.old_key_id = :key AND r.confirmed_at IS NOT NULL AND r.state <> 'cancelled'"
    for rotation in select(tx, stands, key=key.id):
        if rotation.new_deleted_at is None:
            raise Refused(
                "already_replaced",
                f"key {key.id} has a successor in use, {rotation.new_key_id}; if that one is known"
                f" to others too, `keyturn keys rotate {rotation.new_key_id} --compromised`",
            )
    check(tx, key, policy, held=True)
    _end_undo(tx, key, _related(tx, key), actor=actor, policy=policy)
    asked = Asked(actor=actor, reason="compromised")
    return issue(tx, key, asked, policy=policy, peppers=peppers, sealer=sealer)


def issue(
    tx: Tx, key: ApiKey, asked: Asked, *, policy: Policy, peppers: Peppers, sealer: Sealer
) -> Rotation:
    """Make the successor of a checked key, sealed, and its rotation."""
    rotation_id, secret = new_id(), mint(policy.key_prefix)
    issued = api_keys.issue(
        tx,
        account_id=key.account_id,
        name=key.name,
        role=key.role,
        validity=key.expires_at - key.created_at,
        allowed_ips=key.allowed_ips,
        created_by=asked.actor,
        secret=secret,
        peppers=peppers,
        family_id=key.family_id,
        rotation_policy=key.rotation_policy,
    )
    sealed = sealer.seal(
        secret, key_id=issued.id, account_id=key.account_id, rotation_id=rotation_id
    )
    until = claim_deadline(
        issued_at=tx.now(),
        old_expires_at=key.expires_at,
        new_expires_at=issued.expires_at,
        policy=policy,
    )
    tx.execute(
        """
        INSERT INTO keyturn.rotations (
            id, account_id, family_id, old_key_id, new_key_id, state, reason, operation_id,
            idempotency_key, requested_by, sealed, sealed_kek, sealed_until, issued_at,
            next_check_at, old_uses_before)
        SELECT :id, :account, :family, :old, :new, 'issued', :reason, :operation,
            :asked, :actor, :box, :kek, :until, :now, :until,
            coalesce((SELECT uses FROM keyturn.key_uses WHERE key_id = :old), 0)
        """,
        id=rotation_id,
        account=key.account_id,
        family=key.family_id,
        old=key.id,
        new=issued.id,
        reason=asked.reason,
        operation=asked.operation_id,
        asked=asked.idempotency_key,
        actor=asked.actor,
        box=sealed.box,
        kek=sealed.kek,
        until=until,
    )
    rotation = one(tx, rotation_id)
    note(tx, rotation, "issued", actor=asked.actor, why=f"successor {rotation.new_key_id}")
    return hand_overs.plan(tx, rotation, policy)


def tell_issued(tx: Tx, rotation: Rotation) -> None:
    """Tell the owner that a new key is ready, and until when it can be fetched."""
    mail(tx, rotation, "issued", claim_by=rotation.claim_until.isoformat())


def check(
    tx: Tx, key: ApiKey, policy: Policy, *, held: bool = False, expired: bool = False
) -> None:
    """Refuse a key that must not, or need not, have a successor; one that is held, or has expired,
    may have one only where the caller says so."""
    instead = "have a new key created instead"
    if key.deleted_at is not None:
        raise Refused("key_deleted", f"key {key.id} was deleted; {instead}")
    if not expired and (key.status == "expired" or tx.now() >= key.expires_at):
        raise Refused("key_expired", f"key {key.id} has expired; {instead}")
    if key.held and not held:
        raise Refused(
            "key_held",
            f"key {key.id} is disabled or was replaced; enable it first, or rotate its successor",
        )
    if accounts.is_held(tx, key.account_id):
        raise Refused("account_held", f"the account {key.account} is disabled; enable it first")
    if key.expires_at - key.created_at < policy.rotation_min_life:
        raise Refused(
            "too_short_lived",
            f"keys that live less than {policy.rotation_min_life} are not rotated; {instead}",
        )
    roles.check_grant(tx, key.role, key.account_id)


def _related(tx: Tx, key: ApiKey) -> list[Rotation]:
    """The family's rotation that is under way, and those that led from or to the key, the newest
    first."""
    return select(
        tx,
        f"(r.family_id = :family AND r.{one_of('state', ROTATION_OPEN)})"
        " OR (r.old_key_id = :key AND r.state IN ('retired', 'completed'))"
        " OR (r.new_key_id = :key AND r.state = 'retired')"
        " ORDER BY r.issued_at DESC, r.id DESC",
        family=key.family_id,
        key=key.id,
    )


def _end_undo(
    tx: Tx, key: ApiKey, related: Sequence[Rotation], *, actor: str, policy: Policy
) -> None:
    """Two predecessors that might come back would be one too many (rule 5.6)."""
    for previous in related:
        if previous.new_key_id == key.id and previous.state == "retired":
            step = Complete("rotated_again", delete_old=True)
            take(tx, previous, step, actor=actor, policy=policy)


def _asked_before(tx: Tx, key: ApiKey, idempotency_key: str | None) -> Rotation | None:
    if idempotency_key is None:
        return None
    found = select(
        tx,
        "r.account_id = :account AND r.idempotency_key = :asked",
        account=key.account_id,
        asked=idempotency_key,
    )
    if not found:
        return None
    if found[0].old_key_id != key.id:
        raise Refused(
            "idempotency_key_used",
            f"this idempotency key was used to rotate key {found[0].old_key_id}: use another one",
        )
    return latest(tx, found[0])


def latest(tx: Tx, rotation: Rotation) -> Rotation:
    """The rotation that an operator put in the place of this one, or this one."""
    while rotation.reissued_as is not None:
        rotation = one(tx, rotation.reissued_as)
    return rotation


def _rotated_before(tx: Tx, key: ApiKey, related: Sequence[Rotation]) -> Rotation | None:
    """The rotation that gave a retired or expired key its successor: it needs no second one."""
    for rotation in related:
        if (
            rotation.old_key_id == key.id
            and rotation.state in ("retired", "completed")
            and rotation.old_deleted_at is None
        ):
            return latest(tx, rotation)
    return None


def _check_rate(tx: Tx, key: ApiKey, most: int) -> None:
    """Refuse a key whose family has had so many rotations in a day, however they ended."""
    issued = list(
        tx.execute(
            """
            SELECT r.issued_at FROM keyturn.api_keys k
            JOIN keyturn.rotations r ON r.old_key_id = k.id
            WHERE k.family_id = :family AND r.issued_at > :now - :day
            ORDER BY r.issued_at DESC LIMIT :most
            """,
            family=key.family_id,
            day=DAY,
            most=most,
        ).scalars()
    )
    if len(issued) >= most:
        raise Refused(
            "too_many_rotations",
            f"key {key.id} was rotated {most} times within a day: it can be again from"
            f" {issued[-1] + DAY:%Y-%m-%d %H:%M} UTC on; an operator can rotate it now",
        )
