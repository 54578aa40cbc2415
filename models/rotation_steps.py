"""Reads rotations and carries out their steps: each a guarded UPDATE with its audit entry.

The row of the account is locked by the caller. Every change of a rotation takes that lock first,
so it is the rotation's lock too.
"""

from typing import Any
from uuid import UUID

from . import api_keys, audit, holds, outbox
from .base import Tx
from .holds import Cause
from .policy import Policy
from .predicate import WORKS
from .rotation_rules import (
    Block,
    Cancel,
    Complete,
    Confirm,
    Pause,
    Resume,
    Retire,
    Rotation,
    Transition,
    Wait,
    decide,
    retirement,
)

SYSTEM = "keyturn"
"""The actor, and the source of the hold, where nobody asked: time or a use did it."""

_MOST_STEPS = 5
"""No rotation has more steps due at once: resume, confirm, retire, complete, wait."""

BLOCKED = {
    "old_key_in_use": "the old key is still in use, although the time for both keys is over",
    "uses_not_reported": "no use of either key was reported, so nobody can say that the old key"
    " is no longer needed",
    "successor_not_working": "the new key does not work at present",
    "successor_ends_first": "the new key ends before the old one",
}
"""Why a rotation waits for a person, by its `blocked_reason`."""

CANCELLED = {
    "unclaimed": "nobody fetched the new key in time",
    "account_held": "the account was disabled before the new key was fetched",
    "old_key_deleted": "the old key was deleted before the new one was fetched",
    "successor_deleted": "the new key was deleted",
}
"""Why a rotation was cancelled, by its `cancel_reason`; an operator's reason is their own words."""

_SELECT = f"""
    SELECT r.id, r.account_id, a.email AS account, a.held AS account_held, r.family_id, r.state,
        o.name, r.old_key_id, o.hint AS old_hint, o.status AS old_status,
        o.expires_at AS old_expires_at, o.deleted_at AS old_deleted_at,
        ou.last_used_at AS old_last_used_at,
        EXISTS (SELECT FROM keyturn.holds h WHERE h.key_id = o.id AND h.kind = 'compromised'
                AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL) AS old_compromised,
        r.new_key_id, k.hint AS new_hint, k.status AS new_status, k.expires_at AS new_expires_at,
        k.deleted_at AS new_deleted_at, ku.first_used_at AS new_first_used_at,
        ({WORKS}) AS new_works,
        EXISTS (SELECT FROM keyturn.api_keys f JOIN keyturn.key_uses fu ON fu.key_id = f.id
                WHERE f.family_id = r.family_id AND fu.last_used_at >= r.issued_at) AS family_used,
        r.requested_by, r.idempotency_key, r.issued_at, r.sealed_until AS claim_until,
        r.sealed IS NOT NULL AS claimable, r.claimed_at, r.confirmed_at, r.confirmed_by,
        r.retire_at, r.paused_at, r.resumed_at,
        CASE WHEN ah.held_from IS NOT NULL
             THEN greatest(ah.held_from, r.resumed_at, r.issued_at) END AS held_from,
        ah.held_until,
        r.retired_at, r.undo_until, r.ended_at, r.cancel_reason, r.blocked_reason, r.next_check_at
    FROM keyturn.rotations r
    JOIN keyturn.accounts a ON a.id = r.account_id
    JOIN keyturn.api_keys o ON o.id = r.old_key_id
    JOIN keyturn.api_keys k ON k.id = r.new_key_id
    LEFT JOIN keyturn.key_uses ou ON ou.key_id = o.id
    LEFT JOIN keyturn.key_uses ku ON ku.key_id = k.id
    LEFT JOIN LATERAL (
        SELECT min(h.placed_at) AS held_from, max(h.lifted_at) AS held_until
        FROM keyturn.holds h
        WHERE h.account_id = r.account_id AND h.placed_at IS NOT NULL
          AND (h.lifted_at IS NULL OR h.lifted_at > coalesce(r.resumed_at, r.issued_at))
    ) ah ON true
"""


def select(tx: Tx, where: str, **params: Any) -> list[Rotation]:
    """The rotations `r` for which a condition holds; it may go on with ORDER BY and LIMIT."""
    return [Rotation(**row) for row in tx.rows(f"{_SELECT} WHERE {where}", **params)]


def one(tx: Tx, rotation_id: UUID) -> Rotation:
    """A rotation that is known to be there, read anew."""
    return select(tx, "r.id = :id", id=rotation_id)[0]


def bring_up_to_date(tx: Tx, rotation: Rotation, policy: Policy) -> Rotation:
    """Carry out every step that is due, and note when the next one will be."""
    for _ in range(_MOST_STEPS):
        moved = take(tx, rotation, decide(rotation, policy, tx.now()), actor=SYSTEM, policy=policy)
        rotation = one(tx, rotation.id)
        if not moved:
            break
    return rotation


def take(tx: Tx, rotation: Rotation, step: Transition, *, actor: str, policy: Policy) -> bool:
    """Carry out one step. True where it moved the rotation, so that another one may be due."""
    match step:
        case Wait():
            return _wait(tx, rotation, step)
        case Pause():
            return _pause(tx, rotation, step, actor)
        case Resume():
            return _resume(tx, rotation, step, actor, policy)
        case Confirm():
            return _confirm(tx, rotation, step, actor, policy)
        case Block():
            return _block(tx, rotation, step, actor)
        case Retire():
            return _retire(tx, rotation, step, actor, policy)
        case Complete():
            return _complete(tx, rotation, step, actor, policy)
        case Cancel():
            return _cancel(tx, rotation, step, actor, policy)


def note(tx: Tx, rotation: Rotation, verb: str, *, actor: str, why: str) -> None:
    """Add an audit entry about the rotation, to the old key's."""
    audit.record(
        tx,
        actor,
        f"rotation.{verb}",
        account_id=rotation.account_id,
        key_id=rotation.old_key_id,
        why=f"{why} (rotation {rotation.id})",
    )


def mail(
    tx: Tx, rotation: Rotation, verb: str, *, priority: int = outbox.NORMAL, **more: object
) -> None:
    """Tell the owner about the rotation: which two keys, and `more`; never a key's text."""
    payload = {
        "rotation_id": str(rotation.id),
        "account": rotation.account,
        "key": {
            "id": str(rotation.old_key_id),
            "name": rotation.name,
            "hint": rotation.old_hint,
            "expires_at": rotation.old_expires_at.isoformat(),
        },
        "successor": {
            "id": str(rotation.new_key_id),
            "name": rotation.name,
            "hint": rotation.new_hint,
            "expires_at": rotation.new_expires_at.isoformat(),
        },
        **more,
    }
    outbox.add(
        tx,
        outbox.MAIL,
        f"rotation.{verb}",
        payload,
        account_id=rotation.account_id,
        priority=priority,
    )


def _move(tx: Tx, rotation: Rotation, change: str, /, **params: Any) -> bool:
    """The guarded UPDATE: it moves a rotation only from the state in which it was read."""
    return bool(
        tx.count(
            f"UPDATE keyturn.rotations SET {change} WHERE id = :id AND state = :before",
            id=rotation.id,
            before=rotation.state,
            **params,
        )
    )


def _wait(tx: Tx, rotation: Rotation, step: Wait) -> bool:
    if step.until != rotation.next_check_at or rotation.blocked_reason is not None:
        _move(tx, rotation, "next_check_at = :until, blocked_reason = NULL", until=step.until)
    return False


def _pause(tx: Tx, rotation: Rotation, step: Pause, actor: str) -> bool:
    # What a person had to decide stands still too, and is looked at anew after the pause.
    moved = _move(
        tx,
        rotation,
        "paused_at = :at, sealed = NULL, sealed_kek = NULL, blocked_reason = NULL",
        at=step.at,
    )
    if moved:
        note(tx, rotation, "paused", actor=actor, why="account_held")
    return moved


def _resume(tx: Tx, rotation: Rotation, step: Resume, actor: str, policy: Policy) -> bool:
    retire_at = rotation.retire_at
    if retire_at is not None:
        # Nobody could use the old key while the account was held: quiet is counted anew.
        quiet_at = step.at + policy.rotation_quiet
        retire_at = min(rotation.old_expires_at, max(retire_at + step.pause, quiet_at))
    moved = _move(
        tx,
        rotation,
        "paused_at = NULL, resumed_at = :at, retire_at = :retire_at, blocked_reason = NULL,"
        " undo_until = undo_until + :pause",
        at=step.at,
        retire_at=retire_at,
        pause=step.pause,
    )
    if moved:
        note(tx, rotation, "resumed", actor=actor, why=f"account was held for {step.pause}")
    return moved


def _confirm(tx: Tx, rotation: Rotation, step: Confirm, actor: str, policy: Policy) -> bool:
    counted_from = max(step.at, rotation.resumed_at or step.at)  # a pause since the use counts not
    retire_at = retirement(
        confirmed_at=counted_from,
        quiet_from=counted_from,
        old_expires_at=rotation.old_expires_at,
        policy=policy,
    )
    moved = _move(
        tx,
        rotation,
        "state = 'draining', confirmed_at = :at, confirmed_by = :by, retire_at = :retire_at,"
        " sealed = NULL, sealed_kek = NULL",
        at=step.at,
        by=step.by,
        retire_at=retire_at,
    )
    if moved:
        note(tx, rotation, "confirmed", actor=actor, why=f"by {step.by}")
    return moved


def _block(tx: Tx, rotation: Rotation, step: Block, actor: str) -> bool:
    _move(
        tx,
        rotation,
        "blocked_reason = :reason, next_check_at = :until",
        reason=step.reason,
        until=step.until,
    )
    if rotation.blocked_reason != step.reason:
        note(tx, rotation, "blocked", actor=actor, why=step.reason)
        if not _told_of(tx, rotation, step.reason):
            mail(tx, rotation, "blocked", code=step.reason, reason=BLOCKED[step.reason])
    return False


def _told_of(tx: Tx, rotation: Rotation, reason: str) -> bool:
    """Whether the owner was told of this reason before; it may have come, gone and come again."""
    told = tx.row(
        """
        SELECT FROM keyturn.outbox
        WHERE account_id = :account AND kind = 'rotation.blocked'
          AND payload->>'rotation_id' = :rotation AND payload->>'code' = :reason
        """,
        account=rotation.account_id,
        rotation=str(rotation.id),
        reason=reason,
    )
    return told is not None


def _retire(tx: Tx, rotation: Rotation, step: Retire, actor: str, policy: Policy) -> bool:
    moved = _move(
        tx,
        rotation,
        "state = 'retired', retired_at = :now, undo_until = :now + :undo, blocked_reason = NULL",
        undo=policy.undo_for,
    )
    if moved:
        note(tx, rotation, "retired", actor=actor, why=step.why)
        replaced = f"replaced by {rotation.new_key_id}"
        cause = Cause(source=SYSTEM, kind="rotated", actor=actor, reason=replaced)
        holds.place(tx, holds.on_key(rotation.old_key_id), cause, policy)
    return moved


def _complete(tx: Tx, rotation: Rotation, step: Complete, actor: str, policy: Policy) -> bool:
    moved = _move(tx, rotation, f"state = 'completed', {_ENDED}")
    if moved:
        note(tx, rotation, "completed", actor=actor, why=step.why)
        if step.delete_old:
            api_keys.delete(tx, rotation.old_key_id, actor=actor, why="rotated", policy=policy)
            mail(tx, rotation, "completed")
    return moved


def _cancel(tx: Tx, rotation: Rotation, step: Cancel, actor: str, policy: Policy) -> bool:
    moved = _move(
        tx, rotation, f"state = 'cancelled', cancel_reason = :reason, {_ENDED}", reason=step.reason
    )
    if moved:
        note(tx, rotation, "cancelled", actor=actor, why=step.reason)
        api_keys.delete(
            tx, rotation.new_key_id, actor=actor, why="rotation_cancelled", policy=policy
        )
        said = CANCELLED.get(step.reason, step.reason)
        mail(tx, rotation, "cancelled", code=step.reason, reason=said)
    return moved


_ENDED = (
    "ended_at = :now, sealed = NULL, sealed_kek = NULL, blocked_reason = NULL, paused_at = NULL"
)
