"""What a rotation does next: decided from its facts alone (rules 5.3 to 5.8)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from .policy import Policy
from .tables import ROTATION_LIVE

RECHECK = timedelta(minutes=1)
"""When a rotation that waits for something without a time of its own is looked at again."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """One hand-over from an old key to its successor, with all that is decided from. Times are UTC.

    `claim_until` is the end of the sealed secret, `claimable` whether it is still there.
    `held_from` and `held_until` are the account's hold, or its last one that ended, since the
    rotation was issued or resumed. `family_used` says whether any use of the two keys' family was
    recorded since issue; without one, quiet proves nothing.
    """

    id: UUID
    account_id: UUID
    account: str
    account_held: bool
    family_id: UUID
    state: str
    name: str
    old_key_id: UUID
    old_hint: str
    old_status: str
    old_expires_at: datetime
    old_deleted_at: datetime | None
    old_last_used_at: datetime | None
    old_compromised: bool
    new_key_id: UUID
    new_hint: str
    new_status: str
    new_expires_at: datetime
    new_deleted_at: datetime | None
    new_first_used_at: datetime | None
    new_works: bool
    family_used: bool
    requested_by: str
    idempotency_key: str | None
    issued_at: datetime
    claim_until: datetime
    claimable: bool
    claimed_at: datetime | None
    confirmed_at: datetime | None
    confirmed_by: str | None
    retire_at: datetime | None
    paused_at: datetime | None
    resumed_at: datetime | None
    held_from: datetime | None
    held_until: datetime | None
    retired_at: datetime | None
    undo_until: datetime | None
    ended_at: datetime | None
    cancel_reason: str | None
    blocked_reason: str | None
    next_check_at: datetime

    @property
    def handed_over(self) -> bool:
        """Whether anybody has the successor's text: it was claimed, or it is in use."""
        return self.claimed_at is not None or self.new_first_used_at is not None


@dataclass(frozen=True)
class Wait:
    """Nothing to do before this time, or before one of the facts changes."""

    until: datetime


@dataclass(frozen=True)
class Pause:
    """The account is held since `at`: timers stand still and an unclaimed secret goes."""

    at: datetime


@dataclass(frozen=True)
class Resume:
    """The account was held for this long, and works again since `at`: deadlines shift."""

    pause: timedelta
    at: datetime


@dataclass(frozen=True)
class Confirm:
    """The successor is known to work in its holder's hands: issued becomes draining."""

    at: datetime
    by: str


@dataclass(frozen=True)
class Block:
    """The old key is due to be retired, but must not be: the owner is told, a person decides."""

    reason: str
    until: datetime


@dataclass(frozen=True)
class Retire:
    """The old key stops, reversibly."""

    why: str


@dataclass(frozen=True)
class Complete:
    """The rotation is over; where `delete_old`, the old key ends with it."""

    why: str
    delete_old: bool = False


@dataclass(frozen=True)
class Cancel:
    """The successor goes, the old key stays as it is."""

    reason: str


Transition = Wait | Pause | Resume | Confirm | Block | Retire | Complete | Cancel


def claim_deadline(
    *, issued_at: datetime, old_expires_at: datetime, new_expires_at: datetime, policy: Policy
) -> datetime:
    """When an unclaimed secret goes (rule 5.3): after `sealed_for`, never after the key it opens.

    Where the old key will have ended by then, its holder needs the successor all the more: the
    secret stays as long as the successor works.
    """
    deadline = issued_at + policy.sealed_for
    return new_expires_at if old_expires_at <= deadline else min(deadline, new_expires_at)


def retirement(
    *, confirmed_at: datetime, quiet_from: datetime, old_expires_at: datetime, policy: Policy
) -> datetime:
    """The first moment at which rule 5.5 can let the old key be retired, if it stays quiet."""
    overlap_over = confirmed_at + policy.rotation_overlap
    return min(old_expires_at, max(overlap_over, quiet_from + policy.rotation_quiet))


def decide(rotation: Rotation, policy: Policy, now: datetime) -> Transition:
    """The next step of a rotation. A `Wait` is always for later than `now`, or for a fact."""
    if rotation.state not in ROTATION_LIVE:
        return Wait(rotation.next_check_at)
    step = _keys_gone(rotation) or _hold(rotation, now)
    if step is not None:
        return step
    if rotation.state == "issued":
        return _issued(rotation, now)
    if rotation.state == "draining":
        return _draining(rotation, policy, now)
    return _retired(rotation, now)


def _keys_gone(rotation: Rotation) -> Transition | None:
    """What somebody deleted ends the rotation, even of a held account."""
    if rotation.old_deleted_at is not None:
        # Only the holder of the old key can claim: now nobody ever will.
        if rotation.state == "issued" and not rotation.handed_over:
            return Cancel("old_key_deleted")
        return Complete("old_key_deleted")
    if rotation.new_deleted_at is not None and rotation.state != "retired":
        return Cancel("successor_deleted")
    return None


def _hold(rotation: Rotation, now: datetime) -> Transition | None:
    if rotation.account_held:
        if rotation.paused_at is None:
            return Pause(rotation.held_from or now)
        return Wait(rotation.next_check_at)
    # A hold that came and went between two looks was a pause all the same.
    if rotation.paused_at is None and rotation.held_until is None:
        return None
    if rotation.state == "issued" and not rotation.handed_over:
        return Cancel("account_held")
    ended = rotation.held_until or now
    begun = rotation.paused_at or rotation.held_from or ended
    return Resume(max(ended - begun, timedelta(0)), ended)


def _issued(rotation: Rotation, now: datetime) -> Transition:
    if rotation.new_first_used_at is not None:
        return Confirm(rotation.new_first_used_at, "use")
    if rotation.claimed_at is not None:
        # Claimed but never used: the old key goes on to its own end, and that ends the rotation.
        if now >= rotation.old_expires_at:
            return Complete("old_key_expired")
        return Wait(rotation.old_expires_at)
    if now >= rotation.claim_until:
        return Cancel("unclaimed")
    return Wait(rotation.claim_until)


def _draining(rotation: Rotation, policy: Policy, now: datetime) -> Transition:
    if now >= rotation.old_expires_at:
        return Complete("old_key_expired")
    assert rotation.retire_at is not None  # set with the confirmation
    if now < rotation.retire_at:
        return Wait(rotation.retire_at)
    recheck = min(now + RECHECK, rotation.old_expires_at)
    if not rotation.new_works:
        return Block("successor_not_working", recheck)
    if rotation.new_expires_at < rotation.old_expires_at:
        return Block("successor_ends_first", recheck)
    quiet_at = _quiet_from(rotation) + policy.rotation_quiet
    if now < quiet_at:
        return Block("old_key_in_use", min(quiet_at, rotation.old_expires_at))
    if not rotation.family_used:
        return Block("uses_not_reported", recheck)
    return Retire("quiet")


def _quiet_from(rotation: Rotation) -> datetime:
    times = (rotation.old_last_used_at, rotation.confirmed_at, rotation.resumed_at)
    return max(time for time in times if time is not None)


def _retired(rotation: Rotation, now: datetime) -> Transition:
    assert rotation.undo_until is not None  # set with the retirement
    if now >= rotation.undo_until:
        return Complete("undo_ended", delete_old=True)
    return Wait(rotation.undo_until)
