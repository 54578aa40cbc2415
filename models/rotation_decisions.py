"""What a person decides about a rotation. Each verb, repeated, changes nothing more."""

from uuid import UUID

from . import hand_overs, holds
from .base import Tx
from .errors import Refused
from .key_text import Peppers
from .policy import Policy
from .rotation_mails import tell
from .rotation_requests import Asked, check, issue, latest, look, tell_issued
from .rotation_rows import find, one, select
from .rotation_rules import FAILED, HAND_OVER_FAILED, Cancel, Confirm, Retire, Rotation, Undo
from .rotation_steps import attempt, bring_up_to_date, note, take
from .sealing import Sealer
from .tables import ROTATION_LIVE, ROTATION_OPEN


def confirm(tx: Tx, rotation_id: UUID, *, actor: str, policy: Policy) -> Rotation:
    """An operator vouches for the successor, as its first use would (rule 5.4).

    For a rotation that waits for a person because the old key is still in use or uses are not
    reported, it is that person's decision: the old key is retired. Otherwise what is confirmed
    stays as it is. Refused as `rotation_unknown`, `not_claimed`, `account_held`,
    `rotation_cancelled`, and `successor_not_working` where the old key would be the last.
    """
    before = rotation = _locked(tx, rotation_id, policy)
    if rotation.state == "cancelled":
        raise _cancelled(rotation)
    if rotation.state in ROTATION_OPEN:
        _check_confirmable(rotation)
    if rotation.state == "issued":
        take(tx, rotation, Confirm(tx.now(), actor), actor=actor, policy=policy)
        tell(tx, [(before, one(tx, rotation.id))])
    elif rotation.retires_if_confirmed:
        why = f"decided by a person, although {rotation.blocked_reason}"
        take(tx, rotation, Retire(why), actor=actor, policy=policy)
    return bring_up_to_date(tx, one(tx, rotation.id), policy)


def cancel(tx: Tx, rotation_id: UUID, *, actor: str, reason: str, policy: Policy) -> Rotation:
    """End a rotation whose successor is not in use yet: it is deleted, the old key stays.

    Cancelled before, it is left as it is. Refused as `rotation_unknown`, `already_confirmed` and
    `rotation_ended`.
    """
    rotation = _locked(tx, rotation_id, policy)
    if rotation.state == "draining":
        raise Refused(
            "already_confirmed",
            f"the new key {rotation.new_key_id} is in use: deleting it would stop its user. If the"
            f" old key is not to go, leave it to its end; if it is, `keyturn keys delete"
            f" {rotation.old_key_id}`",
        )
    if rotation.state == "retired":
        raise Refused(
            "rotation_ended",
            "the old key was retired: nothing to cancel;"
            f" `keyturn rotations undo {rotation.id}` brings it back",
        )
    if rotation.state == "completed":
        raise Refused("rotation_ended", "the rotation is completed: nothing to cancel")
    if rotation.state == "issued":
        take(tx, rotation, Cancel(f"operator: {reason}"), actor=actor, policy=policy)
    return one(tx, rotation.id)


def undo(tx: Tx, rotation_id: UUID, *, actor: str, reason: str, policy: Policy) -> Rotation:
    """Bring a retired key back; both work, and it drains anew (rule 5.6).

    The overlap and the quiet are waited for once more, from now on. Undone before and not retired
    since, it is left as it is. Refused as `rotation_unknown`, `not_retired`, `undo_over`,
    `rotation_cancelled`, `account_held`, `key_compromised`, `key_expired`.
    """
    rotation = _locked(tx, rotation_id, policy)
    if rotation.undone_at is not None and rotation.state in ("draining", "cancelled"):
        return rotation
    if rotation.state in ROTATION_OPEN:
        raise Refused(
            "not_retired", f"the old key {rotation.old_key_id} was not retired: nothing to undo"
        )
    if rotation.state == "cancelled":
        raise _cancelled(rotation)
    if rotation.state == "completed":
        raise _undo_over(tx, rotation)
    if rotation.account_held:
        raise _account_held(rotation)
    if rotation.old_compromised:
        raise Refused(
            "key_compromised",
            f"the old key {rotation.old_key_id} is known to others: it is not brought back",
        )
    if tx.now() >= rotation.old_expires_at:
        raise Refused(
            "key_expired",
            f"the old key {rotation.old_key_id} has meanwhile come to its own end; have a new key"
            " created instead",
        )
    take(tx, rotation, Undo(reason), actor=actor, policy=policy)
    return bring_up_to_date(tx, one(tx, rotation.id), policy)


def retry(tx: Tx, rotation_id: UUID, *, actor: str, policy: Policy) -> Rotation:
    """Try now what failed, instead of when it would be tried again.

    Whatever else a rotation waits for is looked at anew, and no more. Refused as
    `rotation_unknown`, `account_held`.
    """
    rotation = _lock(tx, rotation_id)
    if rotation.account_held and rotation.state in ROTATION_LIVE:
        raise _account_held(rotation)
    if hand_overs.retry(tx, rotation_id) or rotation.blocked_reason == FAILED:
        note(tx, rotation, "retried", actor=actor, why=rotation.blocked_reason or HAND_OVER_FAILED)
    before = one(tx, rotation_id)
    (after,) = attempt(tx, [before], policy)
    tell(tx, [(before, after)])
    return after


def reissue(
    tx: Tx, rotation_id: UUID, *, actor: str, policy: Policy, sealer: Sealer, peppers: Peppers
) -> Rotation:
    """Put another successor in the place of one whose text was lost (rule 5.3).

    In one transaction the successor is deleted, its rotation cancelled (`reissued`), and a new one
    issued to be handed over as the first was, even if the old key has expired: there are never two
    live successors. Repeated, the answer is the rotation that is there. Refused as
    `rotation_unknown`, `already_confirmed`, `rotation_ended`, `rotation_cancelled`,
    `account_held`, `key_held`, `key_compromised`, `role_not_allowed`.
    """
    rotation = _locked(tx, rotation_id, policy)
    if rotation.reissued_as is not None:
        return latest(tx, rotation)
    _check_reissuable(rotation)
    found = look(tx, rotation.old_key_id)
    check(tx, found, policy, expired=True, held=rotation.reason == "compromised")
    take(tx, rotation, Cancel("reissued"), actor=actor, policy=policy)
    asked = Asked(actor=actor, reason=rotation.reason, operation_id=rotation.operation_id)
    issued = issue(tx, found.key, asked, policy=policy, peppers=peppers, sealer=sealer)
    tx.execute(
        "UPDATE keyturn.rotations SET reissued_as = :issued WHERE id = :id",
        id=rotation.id,
        issued=issued.id,
    )
    if not issued.old_compromised:  # nobody can fetch with it: an operator hands the new one over
        tell_issued(tx, issued)
    return issued


def _lock(tx: Tx, rotation_id: UUID) -> Rotation:
    holds.lock_accounts(tx, [find(tx, str(rotation_id)).account_id])
    return one(tx, rotation_id)


def _locked(tx: Tx, rotation_id: UUID, policy: Policy) -> Rotation:
    return bring_up_to_date(tx, _lock(tx, rotation_id), policy)


def _check_confirmable(rotation: Rotation) -> None:
    if rotation.account_held:
        raise _account_held(rotation)
    if not rotation.handed_over:
        raise Refused(
            "not_claimed",
            "nobody has fetched the new key: its holder runs `keyturn keys claim` with the old one",
        )
    if not rotation.new_works:
        raise Refused(
            "successor_not_working",
            f"the new key {rotation.new_key_id} does not work ({rotation.new_status}): mend that"
            " first, or the old key would be the last",
        )


def _check_reissuable(rotation: Rotation) -> None:
    if rotation.state == "cancelled":
        raise _cancelled(rotation)
    if rotation.state == "draining":
        raise Refused(
            "already_confirmed",
            f"the new key {rotation.new_key_id} is in use: another one in its place would stop its"
            f" user. If that is what you want, `keyturn keys delete {rotation.new_key_id}`, then"
            f" `keyturn keys rotate {rotation.old_key_id}`",
        )
    if rotation.state != "issued":
        raise Refused(
            "rotation_ended",
            f"the rotation is {rotation.state}: `keyturn keys rotate {rotation.new_key_id}`"
            " replaces the new key; if its text is lost, have a new key created instead",
        )
    if rotation.old_compromised and rotation.reason != "compromised":
        raise Refused(
            "key_compromised",
            f"the old key {rotation.old_key_id} is known to others, so nobody can fetch a new one"
            f" with it: `keyturn keys rotate {rotation.old_key_id} --compromised` shows you one",
        )


def _account_held(rotation: Rotation) -> Refused:
    return Refused("account_held", f"the account {rotation.account} is disabled; enable it first")


def _cancelled(rotation: Rotation) -> Refused:
    return Refused(
        "rotation_cancelled",
        f"the rotation was cancelled ({rotation.cancel_reason}); start a new one with"
        f" `keyturn keys rotate {rotation.old_key_id}`",
    )


def _undo_over(tx: Tx, rotation: Rotation) -> Refused:
    instead = "have a new key created instead"
    if rotation.old_deleted_at is None:
        return Refused("undo_over", f"the old key came to its own end; {instead}")
    newer = select(tx, "r.old_key_id = :key ORDER BY r.id LIMIT 1", key=rotation.new_key_id)
    why = f"rotation {newer[0].id} of the new key ended it" if newer else "the time for it is over"
    at = f"{rotation.old_deleted_at:%Y-%m-%d %H:%M} UTC"
    return Refused("undo_over", f"{why}, and the old key was deleted at {at}; {instead}")
