"""A rotation as people see it: how far it is, who still needs the old key, and what is next."""

from datetime import datetime

from models.hand_overs import TRIES, Progress
from models.operator import Operator
from models.rotation_policy import CLAIM, UNDECIDED
from models.rotations import Rotation
from worker.cli import output, times

_MENDS = {
    "old_key_in_use": "give the new key to what still uses the old one, it goes on once that is"
    " quiet; or `keyturn rotations confirm {id}` retires it now",
    "uses_not_reported": "verify with `record` on, or report uses from the gateway; or `keyturn"
    " rotations confirm {id}` retires the old key now",
    "successor_not_working": "`keyturn keys show {new_key_id}` says why",
    "successor_ends_first": "leave it to the old key's end, or rotate the new key",
    "hand_over_failed": "mend what the sink says, then `keyturn rotations retry {id}`; the holder"
    " of the old key can claim the new one instead",
    "secret_unreadable": "bring the file of its key-encryption key back; or `keyturn rotations"
    " reissue {id}`",  # nosec B105
    "step_failed": "the worker's log says more; `keyturn rotations retry {id}` tries again now",
}


def tell(client: Operator, rotation: Rotation, json: bool) -> None:
    """Print a rotation: a document for programs, facts for people."""
    one, progress = rotation, client.hand_over(str(rotation.id))
    facts = output.facts(
        id=one.id,
        state=one.state,
        account=one.account,
        old_key=f'{one.old_key_id} "{one.name}" ({one.old_status})',
        old_key_used=used(one),
        new_key=f"{one.new_key_id} ({one.new_status}), first used"
        f" {times.ago(one.new_first_used_at)}",
        issued=f"{output.shown(one.issued_at)} by {one.requested_by}"
        + ("" if one.reason == "requested" else f" ({one.reason})"),
        sink=_sink(one),
        hand_over=progress and _hand_over(progress),
        fetched=_with(one.claimed_at, one.claimed_by),
        confirmed=_with(one.confirmed_at, one.confirmed_by),
        undone=one.undone_at,
        paused=one.paused_at,
        retired=one.retired_at,
        ended=_with(one.ended_at, one.cancel_reason),
        reissued_as=one.reissued_as,
        blocked_by=one.blocked_reason,
        next=following(one),
    )
    output.answer(json, {**output.plain(one), "hand_over": output.plain(progress)}, facts)


def _sink(rotation: Rotation) -> str | None:
    if rotation.sink == CLAIM:
        return None
    return "a worker chooses it" if rotation.sink == UNDECIDED else rotation.sink


def _hand_over(progress: Progress) -> str:
    """How far it is, what went wrong at last, and when it is tried again."""
    said = progress.state
    if progress.state in ("waiting", "delivered") and progress.tries:
        said += f", {progress.tries} of {TRIES} tries"
    if progress.next_try is not None:
        said += f", next try {times.left(progress.next_try)}"
    return f"{said}: {why}" if (why := progress.error or progress.receipt) else said


def used(rotation: Rotation) -> str:
    """When the old key was used last, from where, and how often of late."""
    last = rotation.old_last_used_at
    if last is None:
        return "never"
    where = f" from {rotation.old_last_ip}" if rotation.old_last_ip else ""
    since = output.shown(rotation.uses_since)
    return f"{times.ago(last)}{where}; {rotation.old_uses} recorded since {since}"


def following(rotation: Rotation) -> str | None:
    """What happens next, or what somebody has to do."""
    one = rotation
    if one.paused_at is not None:
        return "nothing while the account is disabled"
    if one.blocked_reason is not None:
        mend = _MENDS.get(one.blocked_reason)
        return mend and mend.format(id=one.id, new_key_id=one.new_key_id)
    if one.state == "issued" and one.claimed_at is not None:
        return "the first use of the new key confirms it"
    if one.state == "issued" and one.sink != CLAIM and one.claimable:
        who = "a worker" if one.sink == UNDECIDED else f"the sink {one.sink}"
        return f"{who} hands the new key over{_at(one.claim_until)}"
    if one.state == "issued":
        until = _at(one.claim_until)
        return f"`keyturn keys claim` with the old key{until}" if one.claimable else None
    if one.state == "draining":
        return f"the old key is retired{_at(one.retire_at, 'on')} if it is quiet by then"
    if one.state == "retired":
        until = _at(one.undo_until)
        return f"`keyturn rotations undo {one.id}`{until}; then the old key is deleted"
    return None


def _at(moment: datetime | None, word: str = "until") -> str:
    return "" if moment is None else f" {word} {output.shown(moment)} ({times.left(moment)})"


def _with(moment: datetime | None, note: str | None) -> str | None:
    return None if moment is None else output.shown(moment) + (f" ({note})" if note else "")
