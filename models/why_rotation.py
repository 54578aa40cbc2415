"""What a rotation waits for, in sentences: from the same facts by which it is decided."""

from datetime import datetime
from uuid import UUID

from .hand_overs import Progress
from .policy import Policy
from .rotation_mails import BLOCKED, CANCELLED
from .rotation_policy import CLAIM, UNDECIDED
from .rotation_rules import Rotation
from .tables import ROTATION_LIVE, ROTATION_OPEN


def at(moment: datetime | None) -> str:
    """A time as it stands in a sentence."""
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M} UTC"


def place(rotation: Rotation, key_id: UUID) -> str:
    """A key's place in a rotation."""
    other, said = rotation.new_key_id, "is replaced by"
    if key_id == rotation.new_key_id:
        other, said = rotation.old_key_id, "replaces"
    elif rotation.state == "completed":
        said = "was replaced by"
    return f"It {said} key {other} (rotation {rotation.id}, {rotation.state})."


def standing(rotation: Rotation, hand_over: Progress | None) -> list[str]:
    """How far a rotation is, and since when; with how the hand-over to its sink stands."""
    by = f"asked for by {rotation.requested_by}, {rotation.reason}"
    said = [
        f'Rotation {rotation.id} of key {rotation.old_key_id} "{rotation.name}" of'
        f" {rotation.account} is {rotation.state}; {by}, at {at(rotation.issued_at)}.",
        f"The old key is {rotation.old_status}, the new one {rotation.new_key_id}"
        f" {rotation.new_status}.",
    ]
    if rotation.claimed_at is not None:
        by = f" to {rotation.claimed_by}" if rotation.claimed_by else ""
        if rotation.delivered_by is not None:
            by = f" by the sink {rotation.delivered_by}"
        said.append(f"The new key was handed over{by} at {at(rotation.claimed_at)}.")
    elif rotation.state == "issued":
        said.append("Nobody has fetched the new key yet.")
    if hand_over is not None and rotation.state in ROTATION_OPEN:
        said += _of_sink(hand_over)
    if rotation.confirmed_at is not None:
        said.append(f"It was confirmed by {rotation.confirmed_by} at {at(rotation.confirmed_at)}.")
    if rotation.cancel_reason is not None:
        why = CANCELLED.get(rotation.cancel_reason, rotation.cancel_reason)
        said.append(f"It was cancelled at {at(rotation.ended_at)}: {why}.")
    elif rotation.ended_at is not None:
        said.append(f"It ended at {at(rotation.ended_at)}.")
    return said + (_of_uses(rotation) if rotation.state in ROTATION_OPEN else [])


def to_come(rotation: Rotation, policy: Policy, now: datetime) -> list[str]:
    """What will happen by itself, and when."""
    if rotation.state not in ROTATION_LIVE:
        return []
    if rotation.account_held:
        return [
            "While the account is disabled the rotation stands still; all its times are later by"
            " as long as that lasts."
            + ("" if rotation.handed_over else " The new key is withdrawn.")
        ]
    if rotation.state == "issued":
        return _issued(rotation)
    if rotation.state == "retired":
        return [f"The old key is deleted at {at(rotation.undo_until)}."]
    said = [f"The old key ends at {at(rotation.old_expires_at)} at the latest."]
    quiet = f"not used for {policy.rotation_quiet.total_seconds() / 3600:g} hours"
    if rotation.blocked_reason is not None:
        said.append(f"It waits: {BLOCKED.get(rotation.blocked_reason, rotation.blocked_reason)}.")
    elif rotation.retire_at is not None and rotation.retire_at > now:
        said.append(f"The old key is retired at {at(rotation.retire_at)}, if it is {quiet} then.")
    else:
        said.append(f"The old key is retired as soon as it is {quiet}.")
    return said


def mends(rotation: Rotation, policy: Policy, now: datetime) -> list[str]:
    """What a person can do about a rotation."""
    if rotation.state not in ROTATION_LIVE:
        return []
    if rotation.state == "retired":
        if rotation.old_compromised:
            return ["There is no undo: others know the old key."]
        return [f"`keyturn rotations undo {rotation.id}` lets the old key work again."]
    said = []
    if rotation.state == "issued":
        said += _fetch(rotation)
        said.append(f"`keyturn rotations cancel {rotation.id}` deletes the new key.")
    waits_for_uses = not rotation.family_used and not _young(rotation, policy, now)
    if waits_for_uses:
        said.append(
            "Let what verifies the keys report their uses (`verify` does, `keyturn keys"
            " report-use` for a gateway)."
        )
    if rotation.handed_over and (rotation.blocked_reason or rotation.state == "issued"):
        said.append(
            f"`keyturn rotations confirm {rotation.id}` vouches that the new key is in use"
            + (", and retires the old one." if rotation.state == "draining" else ".")
        )
    if rotation.blocked_reason == "successor_not_working":
        said.append(f"`keyturn why {rotation.new_key_id}` says why the new key does not work.")
    return said


def _young(rotation: Rotation, policy: Policy, now: datetime) -> bool:
    return now - rotation.issued_at < policy.rotation_quiet


def _of_uses(rotation: Rotation) -> list[str]:
    said = []
    if rotation.old_last_used_at is not None:
        said.append(f"The old key was last used at {at(rotation.old_last_used_at)}.")
    if not rotation.family_used:
        said.append(
            "No use of either key was reported since the rotation began, so nobody can say whether"
            " the old one is still needed."
        )
    return said


def _of_sink(hand_over: Progress) -> list[str]:
    """What the sink said, of a hand-over that is not through."""
    if hand_over.sink == UNDECIDED:
        return ["A worker will choose by the key's policy how the new key is handed over."]
    why = f": {hand_over.error}" if hand_over.error else ""
    if hand_over.state == "failed":
        return [f"The sink {hand_over.sink} did not take the new key{why}."]
    if hand_over.next_try is None:
        return []
    tries = f" after {hand_over.tries} tries{why}" if hand_over.tries else ""
    return [f"The sink {hand_over.sink} is tried at {at(hand_over.next_try)}{tries}."]


def _issued(rotation: Rotation) -> list[str]:
    if rotation.handed_over:
        return [
            "It waits for the first use of the new key.",
            f"The old key works until its end at {at(rotation.old_expires_at)}."
            if rotation.old_status == "active"
            else f"The old key does not work ({rotation.old_status}).",
        ]
    if rotation.sink not in (CLAIM, UNDECIDED):
        return [
            f"It waits for the sink {rotation.sink} to take the new key, or somebody to fetch it,"
            f" until {at(rotation.claim_until)}; then the new key is deleted and the old one stays"
            " as it is."
        ]
    return [
        f"It waits for somebody to fetch the new key, until {at(rotation.claim_until)}; then the"
        " new key is deleted and the old one stays as it is."
    ]


def _fetch(rotation: Rotation) -> list[str]:
    if rotation.handed_over:
        return [
            f"`keyturn rotations reissue {rotation.id}` makes another new key, if the text of this"
            " one was lost."
        ]
    if rotation.old_compromised:
        return [
            f"`keyturn keys rotate {rotation.old_key_id} --compromised` shows the new key to an"
            " operator: the old one proves nothing."
        ]
    if rotation.hand_over_failed:
        return [
            f"`keyturn rotations retry {rotation.id}` tries the sink {rotation.sink} again; the"
            " holder may fetch the new key by `keyturn keys claim` instead."
        ]
    return ["The holder fetches the new key by `keyturn keys claim`, with the old one on stdin."]
