"""Issuing successors: whoever asks gets the rotation that is there, or a new one (rule 5.2)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from . import api_keys, hand_overs, roles
from .api_keys import COLUMNS as KEY_COLUMNS
from .api_keys import FROM as OF_KEYS
from .api_keys import ISSUED as ISSUE_KEY
from .api_keys import ApiKey, IssuedKey
from .base import Tx
from .errors import Refused
from .identity import new_id
from .key_text import Peppers, mint
from .policy import DAY, Policy
from .predicate import HELD
from .roles import GRANTED
from .rotation_mails import ISSUED, add
from .rotation_rows import BEGUN, one, select
from .rotation_rules import Complete, Reason, Rotation, claim_deadline
from .rotation_steps import bring_up_to_date, note, take
from .sealing import Sealer
from .tables import ROTATION_OPEN, one_of

MOST_CHARACTERS: Final = 200
"""Of an idempotency key: a unique index holds it, whose entries have at most 2,704 bytes."""

_RELATED = f"""
    (r.family_id = k.family_id AND r.{one_of("state", ROTATION_OPEN)})
    OR (r.old_key_id = k.id AND r.state IN ('retired', 'completed'))
    OR (r.new_key_id = k.id AND r.state = 'retired')
"""
_RELATED_TO = _RELATED.replace("k.family_id", ":family").replace("k.id", ":key")
_LOOK = f"""
    SELECT {KEY_COLUMNS}, {HELD} AS account_held, {GRANTED} AS role_allowed,
        EXISTS (SELECT FROM keyturn.rotations r WHERE {_RELATED}) AS in_rotation,
        ARRAY(
            SELECT r.issued_at FROM keyturn.api_keys f
            JOIN keyturn.rotations r ON r.old_key_id = f.id
            WHERE f.family_id = k.family_id AND r.issued_at > :now - :day
            ORDER BY r.issued_at DESC LIMIT :most
        ) AS issued, :now AS now
    {OF_KEYS} WHERE k.id = :key
"""


@dataclass(frozen=True)
class Look:
    """A key as it stands under its account's lock, and what a successor depends on.

    `in_rotation`: there are rotations to be looked at first. `issued`: when its family's rotations
    of the last day were, the newest first, as many as were asked for.
    """

    key: ApiKey
    account_held: bool
    role_allowed: bool
    in_rotation: bool
    issued: Sequence[datetime]


def look(tx: Tx, key_id: UUID, most: int = 0) -> Look:
    """Look at a key of a locked account; NotFound (`key_unknown`) if there is none."""
    row = tx.row(_LOOK, key=key_id, day=DAY, most=most)
    if row is None:
        raise api_keys.unknown(str(key_id))
    facts = dict(row)
    tx.learn(facts.pop("now"))
    beside = {
        name: facts.pop(name) for name in ("account_held", "role_allowed", "in_rotation", "issued")
    }
    return Look(ApiKey(**facts), **beside)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is written down of who asked for a rotation, and why."""

    actor: str
    reason: Reason = "requested"
    idempotency_key: str | None = None
    operation_id: UUID | None = None

    def __post_init__(self) -> None:
        """Refuse (`idempotency_key_invalid`) what cannot be kept, and the empty key of a script
        whose variable is not set: all its requests would be the same."""
        key = self.idempotency_key
        if key is None:
            return
        if not (isinstance(key, str) and 0 < len(key) <= MOST_CHARACTERS and key.isprintable()):
            raise Refused(
                "idempotency_key_invalid",
                f"an idempotency key is a text of 1 to {MOST_CHARACTERS} printable characters;"
                " to ask without one, leave it out",
            )


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
    `too_short_lived`, `role_not_allowed`, `idempotency_key_used`, `idempotency_key_invalid`.
    """
    api_keys.lock(tx, key_id)
    asked = Asked(
        actor=actor, reason=reason, idempotency_key=idempotency_key, operation_id=operation_id
    )
    return answer(
        tx,
        key_id,
        asked,
        policy=policy,
        sealer=sealer,
        peppers=peppers,
        tell_owner=tell_owner,
        most_a_day=most_a_day,
    )


def answer(
    tx: Tx,
    key_id: UUID,
    asked: Asked,
    *,
    policy: Policy,
    sealer: Sealer,
    peppers: Peppers,
    tell_owner: bool = True,
    most_a_day: int | None = None,
) -> Rotation:
    """`request` for a key whose account is locked."""
    found = look(tx, key_id, most_a_day or 0)
    if (known := _asked_before(tx, found.key, asked.idempotency_key)) is not None:
        return known
    related = _related(tx, found)
    for rotation in related:
        if rotation.state in ROTATION_OPEN:  # one at most
            rotation = bring_up_to_date(tx, rotation, policy)
            if rotation.state in ROTATION_OPEN:
                return rotation
            # What was due just now may have stopped or ended the key.
            found = look(tx, key_id, most_a_day or 0)
            related = _related(tx, found)
    if (before := _rotated_before(tx, found.key, related)) is not None:
        return before
    check(tx, found, policy)
    if most_a_day is not None:
        _check_rate(found, most_a_day)
    _end_undo(tx, found.key, related, actor=asked.actor, policy=policy)
    rotation = issue(tx, found.key, asked, policy=policy, peppers=peppers, sealer=sealer)
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
    found = look(tx, key.id)
    check(tx, found, policy, held=True)
    _end_undo(tx, key, _related(tx, found), actor=actor, policy=policy)
    asked = Asked(actor=actor, reason="compromised")
    return issue(tx, key, asked, policy=policy, peppers=peppers, sealer=sealer)


def issue(
    tx: Tx, key: ApiKey, asked: Asked, *, policy: Policy, peppers: Peppers, sealer: Sealer
) -> Rotation:
    """Make the successor of a checked key, sealed, and its rotation."""
    rotation_id, secret = new_id(), mint(policy.key_prefix)
    validity = key.expires_at - key.created_at
    successor = api_keys.parameters(
        account_id=key.account_id,
        name=key.name,
        role=key.role,
        validity=validity,
        allowed_ips=key.allowed_ips,
        created_by=asked.actor,
        secret=secret,
        peppers=peppers,
        family_id=key.family_id,
        rotation_policy=key.rotation_policy,
    )
    sealed = sealer.seal(
        secret, key_id=successor["id"], account_id=key.account_id, rotation_id=rotation_id
    )
    until = claim_deadline(
        issued_at=tx.now(),
        old_expires_at=key.expires_at,
        new_expires_at=tx.now() + validity,
        policy=policy,
    )
    row = tx.row(
        _BEGIN,
        **successor,
        rotation=rotation_id,
        old=key.id,
        reason=asked.reason,
        operation=asked.operation_id,
        asked=asked.idempotency_key,
        box=sealed.box,
        kek=sealed.kek,
        until=until,
    )
    assert row is not None
    rotation = Rotation(**row)
    issued = IssuedKey(rotation.new_key_id, rotation.family_id, rotation.new_expires_at)
    api_keys.announce(tx, issued, account_id=rotation.account_id, created_by=asked.actor)
    note(tx, rotation, "issued", actor=asked.actor, why=f"successor {rotation.new_key_id}")
    return hand_overs.plan(tx, rotation, policy)


_BEGIN = f"""
    WITH {ISSUE_KEY}, begun AS (
        INSERT INTO keyturn.rotations (
            id, account_id, family_id, old_key_id, new_key_id, state, reason, operation_id,
            idempotency_key, requested_by, sealed, sealed_kek, sealed_until, issued_at,
            next_check_at, old_uses_before)
        SELECT :rotation, :account, :family, :old, :id, 'issued', :reason, :operation,
            :asked, :created_by, :box, :kek, :until, :now, :until,
            coalesce((SELECT uses FROM keyturn.key_uses WHERE key_id = :old), 0)
        RETURNING *
    )
    {BEGUN}
"""


def tell_issued(tx: Tx, rotation: Rotation) -> None:
    """Tell the owner that a new key is ready, and until when it can be fetched."""
    add(tx, ISSUED, rotation, claim_by=rotation.claim_until.isoformat(), sink=rotation.sink)


def check(
    tx: Tx, found: Look, policy: Policy, *, held: bool = False, expired: bool = False
) -> None:
    """Refuse a key that must not, or need not, have a successor; one that is held, or has expired,
    may have one only where the caller says so."""
    key = found.key
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
    if found.account_held:
        raise Refused("account_held", f"the account {key.account} is disabled; enable it first")
    if key.expires_at - key.created_at < policy.rotation_min_life:
        raise Refused(
            "too_short_lived",
            f"keys that live less than {policy.rotation_min_life} are not rotated; {instead}",
        )
    if not found.role_allowed:
        roles.check_grant(tx, key.role, key.account_id)


def _related(tx: Tx, found: Look) -> list[Rotation]:
    """The family's rotation that is under way, and those that led from or to the key, the newest
    first."""
    if not found.in_rotation:
        return []
    return select(
        tx,
        f"{_RELATED_TO} ORDER BY r.issued_at DESC, r.id DESC",
        family=found.key.family_id,
        key=found.key.id,
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


def _check_rate(found: Look, most: int) -> None:
    """Refuse a key whose family has had so many rotations in a day, however they ended."""
    if len(found.issued) >= most:
        raise Refused(
            "too_many_rotations",
            f"key {found.key.id} was rotated {most} times within a day: it can be again from"
            f" {found.issued[-1] + DAY:%Y-%m-%d %H:%M} UTC on; an operator can rotate it now",
        )
