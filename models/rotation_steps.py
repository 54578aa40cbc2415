"""Carries out the steps of rotations: each a guarded UPDATE with its audit entry.

The row of the account is locked by the caller. Every change of a rotation takes that lock first,
so it is the rotation's lock too.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from . import api_keys, audit, holds, rotation_states
from .base import Tx, is_server_trouble
from .holds import Cause
from .policy import Policy
from .rotation_mails import (
    CANCELLED,
    REPLACED,
    RETIRED,
    WITHDRAWN,
    add,
    tell,
    tell_blocked,
    used,
)
from .rotation_rows import one, select
from .rotation_rules import (
    FAILED,
    IN_USE,
    RECHECK,
    UNREADABLE,
    Block,
    Cancel,
    Complete,
    Confirm,
    Pause,
    Resume,
    Retire,
    Rotation,
    Transition,
    Undo,
    Wait,
    Warn,
    decide,
    retirement,
)
from .tables import ROTATION_LIVE

T = TypeVar("T", bound=Transition)
Steps: TypeAlias = list[tuple[Rotation, T]]

SYSTEM = "keyturn"
"""The actor, and the source of the hold, where nobody asked: time or a use did it."""

REPLACED_AT_ONCE = ("reissued", "key_compromised")
"""Cancelled for a newer rotation, of which the owner is told instead."""

_MOST_STEPS = 5
"""No rotation has more steps due at once: resume, confirm, retire, complete, wait."""


def bring_up_to_date(tx: Tx, rotation: Rotation, policy: Policy) -> Rotation:
    """Carry out every step that is due, tell the owner, and note when the next one will be."""
    (after,) = catch_up(tx, [rotation], policy)
    tell(tx, [(rotation, after)])
    return after


def catch_up(tx: Tx, rotations: Sequence[Rotation], policy: Policy) -> list[Rotation]:
    """The same for several at once, as they are then, in the same order; the caller tells owners.

    All take their first steps together, then those that moved their second ones, and so on, until
    they wait or have ended.
    """
    now = {rotation.id: rotation for rotation in rotations}
    moving = list(now)
    for _ in range(_MOST_STEPS):
        steps = [(now[one], decide(now[one], policy, tx.now())) for one in moving]
        moved = take_all(tx, steps, actor=SYSTEM, policy=policy)
        now |= {one.id: one for one in select(tx, "r.id = ANY(:ids)", ids=moving)}
        moving = [one for one in moving if one in moved and now[one].state in ROTATION_LIVE]
        if not moving:
            break
    return list(now.values())


def attempt(tx: Tx, rotations: Sequence[Rotation], policy: Policy) -> list[Rotation]:
    """Catch up; a rotation of which a step fails is put off, so that it stops no other."""
    if not rotations:
        return []
    savepoint = tx.savepoint()
    try:
        after = catch_up(tx, rotations, policy)
        tx.write_added()
    except Exception as error:
        if is_server_trouble(error):
            raise
        tx.undo(savepoint)
        if len(rotations) > 1:  # each by itself, to find the one
            return [after for one in rotations for after in attempt(tx, [one], policy)]
        return [_put_off(tx, rotations[0], type(error).__name__)]
    savepoint.commit()  # what this raises is no step's fault: the whole batch is tried again
    return after


def _put_off(tx: Tx, rotation: Rotation, error: str) -> Rotation:
    tx.execute(
        "UPDATE keyturn.rotations SET blocked_reason = :failed,"
        " next_check_at = :now + :pause WHERE id = :id",
        id=rotation.id,
        failed=FAILED,
        pause=RECHECK,
    )
    if rotation.blocked_reason != FAILED:
        note(tx, rotation, FAILED, actor=SYSTEM, why=error)
    return one(tx, rotation.id)


def take(tx: Tx, rotation: Rotation, step: Transition, *, actor: str, policy: Policy) -> bool:
    """Carry out one step. True where it moved the rotation, so that another one may be due."""
    return bool(take_all(tx, [(rotation, step)], actor=actor, policy=policy))


def take_all(
    tx: Tx, steps: Sequence[tuple[Rotation, Transition]], *, actor: str, policy: Policy
) -> set[UUID]:
    """Carry out one step of each of several rotations; returns those that it moved.

    What every rotation goes through is one statement for all of them, the rest one for each.
    """
    confirm, retire, complete = Steps[Confirm](), Steps[Retire](), Steps[Complete]()
    moved = set[UUID]()
    for rotation, step in steps:
        match step:
            case Confirm():
                confirm.append((rotation, step))
            case Retire():
                retire.append((rotation, step))
            case Complete():
                complete.append((rotation, step))
            case _:
                if _take_alone(tx, rotation, step, actor, policy):
                    moved.add(rotation.id)
    if confirm:
        moved |= _confirm(tx, confirm, actor, policy)
    if retire:
        moved |= _retire(tx, retire, actor, policy)
    if complete:
        moved |= _complete(tx, complete, actor, policy)
    return moved


def _take_alone(
    tx: Tx,
    rotation: Rotation,
    step: Wait | Pause | Resume | Warn | Block | Undo | Cancel,
    actor: str,
    policy: Policy,
) -> bool:
    match step:
        case Wait():
            return _wait(tx, rotation, step)
        case Block():
            return _block(tx, rotation, step, actor)
        case Warn():
            return _move(tx, rotation, step, "warned_for = :at", at=step.retire_at)
        case Pause():
            return _pause(tx, rotation, step, actor)
        case Resume():
            return _resume(tx, rotation, step, actor, policy)
        case Undo():
            return _undo(tx, rotation, step, actor, policy)
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


def _move(tx: Tx, rotation: Rotation, step: Transition, change: str, /, **params: Any) -> bool:
    """The guarded UPDATE: it moves a rotation only from the state in which it was read, and only
    where the step leads. Raises NoSuchTransition."""
    return bool(_move_all(tx, [(rotation, step)], change, **params))


def _move_all(
    tx: Tx, steps: Sequence[tuple[Rotation, T]], change: str, /, **params: Any
) -> list[tuple[Rotation, T]]:
    """The same for several at once; returns those that it moved. The change may use `s.place`, the
    how-manieth a rotation is, from 1."""
    ids = tx.execute(
        f"""
        UPDATE keyturn.rotations r SET state = s.after, {change}
        FROM unnest(CAST(:ids AS uuid[]), CAST(:befores AS text[]), CAST(:afters AS text[]))
             WITH ORDINALITY AS s (id, before, after, place)
        WHERE r.id = s.id AND r.state = s.before
        RETURNING r.id
        """,
        ids=[rotation.id for rotation, _ in steps],
        befores=[rotation.state for rotation, _ in steps],
        afters=[rotation_states.after(rotation.state, step) for rotation, step in steps],
        **params,
    ).scalars()
    moved = set(ids)
    return [(rotation, step) for rotation, step in steps if rotation.id in moved]


def _wait(tx: Tx, rotation: Rotation, step: Wait) -> bool:
    # That a text does not open is no fact of the rotation: only its next claim can tell.
    kept = rotation.blocked_reason == UNREADABLE and rotation.claimable
    blocked = UNREADABLE if kept else None
    if (step.until, blocked) != (rotation.next_check_at, rotation.blocked_reason):
        change = "next_check_at = :until, blocked_reason = :blocked"
        _move(tx, rotation, step, change, until=step.until, blocked=blocked)
    return False


def _pause(tx: Tx, rotation: Rotation, step: Pause, actor: str) -> bool:
    # What a person had to decide stands still too, and is looked at anew after the pause.
    moved = _move(
        tx,
        rotation,
        step,
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
        step,
        "paused_at = NULL, resumed_at = :at, retire_at = :retire_at, blocked_reason = NULL,"
        " undo_until = undo_until + :pause",
        at=step.at,
        retire_at=retire_at,
        pause=step.pause,
    )
    if moved:
        note(tx, rotation, "resumed", actor=actor, why=f"account was held for {step.pause}")
    return moved


def _confirm(tx: Tx, steps: Steps[Confirm], actor: str, policy: Policy) -> set[UUID]:
    moved = _move_all(
        tx,
        steps,
        f"""
        confirmed_at = (CAST(:times AS timestamptz[]))[s.place],
        confirmed_by = (CAST(:by AS text[]))[s.place],
        retire_at = (CAST(:retirements AS timestamptz[]))[s.place],
        sealed = NULL, sealed_kek = NULL, blocked_reason = NULL, {_COUNTED_ANEW}
        """,
        times=[step.at for _, step in steps],
        by=[step.by for _, step in steps],
        retirements=[_retire_at(rotation, step, policy) for rotation, step in steps],
    )
    for rotation, step in moved:
        note(tx, rotation, "confirmed", actor=actor, why=f"by {step.by}")
    return _ids(moved)


def _retire_at(rotation: Rotation, step: Confirm, policy: Policy) -> datetime:
    counted_from = max(step.at, rotation.resumed_at or step.at)  # a pause since the use counts not
    return retirement(
        confirmed_at=counted_from,
        quiet_from=counted_from,
        old_expires_at=rotation.old_expires_at,
        policy=policy,
    )


def _block(tx: Tx, rotation: Rotation, step: Block, actor: str) -> bool:
    _move(
        tx,
        rotation,
        step,
        "blocked_reason = :reason, next_check_at = :until",
        reason=step.reason,
        until=step.until,
    )
    if rotation.blocked_reason != step.reason:
        note(tx, rotation, "blocked", actor=actor, why=step.reason)
        tell_blocked(tx, rotation, step.reason)
    return False


def _retire(tx: Tx, steps: Steps[Retire], actor: str, policy: Policy) -> set[UUID]:
    moved = _move_all(
        tx,
        steps,
        "retired_at = :now, undo_until = :now + :undo, blocked_reason = NULL",
        undo=policy.undo_for,
    )
    for rotation, step in moved:
        note(tx, rotation, "retired", actor=actor, why=step.why)
    wanted = {
        holds.on_key(rotation.old_key_id): _retirement_of(rotation, actor) for rotation, _ in moved
    }
    if wanted:
        holds.place_alike(tx, wanted, policy)
    for rotation, step in moved:
        if step.why == IN_USE:
            retired = one(tx, rotation.id)
            add(tx, RETIRED, retired, undo_until=str(retired.undo_until), **used(retired))
    return _ids(moved)


def _undo(tx: Tx, rotation: Rotation, step: Undo, actor: str, policy: Policy) -> bool:
    moved = _move(
        tx,
        rotation,
        step,
        "retired_at = NULL, undo_until = NULL, undone_at = :now, resumed_at = :now,"
        f" retire_at = :retire_at, next_check_at = :now, {_COUNTED_ANEW}",
        retire_at=retirement(
            confirmed_at=tx.now(),
            quiet_from=tx.now(),
            old_expires_at=rotation.old_expires_at,
            policy=policy,
        ),
    )
    if moved:
        note(tx, rotation, "undone", actor=actor, why=step.reason)
        cause = _retirement_of(rotation, actor)
        holds.lift(tx, holds.on_key(rotation.old_key_id), cause, policy)
    return moved


def _retirement_of(rotation: Rotation, actor: str) -> Cause:
    replaced = f"replaced by {rotation.new_key_id}"
    return Cause(source=SYSTEM, kind="rotated", actor=actor, reason=replaced)


def _complete(tx: Tx, steps: Steps[Complete], actor: str, policy: Policy) -> set[UUID]:
    moved = _move_all(tx, steps, _ENDED)
    for rotation, step in moved:
        note(tx, rotation, "completed", actor=actor, why=step.why)
    ending = [rotation for rotation, step in moved if step.delete_old]
    if ending:
        old = [rotation.old_key_id for rotation in ending]
        api_keys.delete_all(tx, old, actor=actor, why="rotated", policy=policy)
    for rotation in ending:
        add(tx, REPLACED, rotation)
    return _ids(moved)


def _ids(moved: Sequence[tuple[Rotation, Transition]]) -> set[UUID]:
    return {rotation.id for rotation, _ in moved}


def _cancel(tx: Tx, rotation: Rotation, step: Cancel, actor: str, policy: Policy) -> bool:
    moved = _move(tx, rotation, step, f"cancel_reason = :reason, {_ENDED}", reason=step.reason)
    if moved:
        note(tx, rotation, "cancelled", actor=actor, why=step.reason)
        api_keys.delete(
            tx, rotation.new_key_id, actor=actor, why="rotation_cancelled", policy=policy
        )
        if step.reason not in REPLACED_AT_ONCE:
            said = CANCELLED.get(step.reason, step.reason)
            add(tx, WITHDRAWN, rotation, code=step.reason, reason=said)
    return moved


_ENDED = (
    "ended_at = :now, sealed = NULL, sealed_kek = NULL, blocked_reason = NULL, paused_at = NULL"
)

_COUNTED_ANEW = (
    "old_uses_before ="
    " coalesce((SELECT uses FROM keyturn.key_uses u WHERE u.key_id = old_key_id), 0)"
)
