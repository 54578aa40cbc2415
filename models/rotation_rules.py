"""What a rotation does next: decided from its facts alone (rules 5.3 to 5.8)."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeAlias
from uuid import UUID

from .policy import Policy
from .rotation_policy import CLAIM, chosen
from .tables import ROTATION_LIVE

Reason: TypeAlias = Literal["requested", "scheduled", "operation", "compromised"]
"""Why a rotation was begun: somebody asked, its time came, it is one of many, its key leaked."""

RECHECK = timedelta(minutes=1)
"""When a rotation that waits for something without a time of its own is looked at again."""

WARN_AHEAD = timedelta(hours=24)
"""How long before the old key goes its owner is warned, where both keys work for longer."""

IN_USE = "in_use"
"""Why an old key is retired that is still used: its rotation policy says so."""

HAND_OVER_FAILED = "hand_over_failed"
"""The `blocked_reason` of a rotation whose sink does not take the new key, or not promote it."""

DELIVERED_BY = "sink:"
"""What `claimed_by` begins with where a sink handed the key over; its name follows."""

FAILED = "step_failed"
"""The `blocked_reason` of a rotation of which a step raised an error; the audit says which."""

UNREADABLE = "secret_unreadable"
"""The `blocked_reason` where the sealed secret does not open: its key-encryption key is missing."""

DECIDABLE = ("old_key_in_use", "uses_not_reported")
"""Reasons to wait that a person may overrule: the successor works, so nobody is locked out."""


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """One hand-over from an old key to its successor, with all that is decided from. Times are UTC.

    `claim_until` is the end of the sealed secret, `claimable` whether it is still there.
    `held_from` and `held_until` are the account's hold, or its last one that ended, since the
    rotation was issued or resumed. `family_used` says whether any use of the two keys' family was
    recorded since issue; without one, quiet proves nothing. `old_uses` counts the recorded uses of
    the old key since `uses_since`: issue, confirmation or undo. `warned_for` is the `retire_at`
    that the owner was warned of, `reissued_as` the rotation that took the place of this one. `sink`
    names the hand-over; `hand_over_failed` says that it was given up, and nobody has claimed the
    key instead. `claimed_by` is who fetched the key, or `sink:` and a name.
    """

    id: UUID
    account_id: UUID
    account: str
    account_held: bool
    family_id: UUID
    state: str
    reason: Reason
    operation_id: UUID | None
    policy_name: str | None
    name: str
    role: str
    old_key_id: UUID
    old_hint: str
    old_status: str
    old_expires_at: datetime
    old_deleted_at: datetime | None
    old_last_used_at: datetime | None
    old_last_ip: str | None
    old_uses: int
    uses_since: datetime
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
    sink: str = CLAIM
    claimed_by: str | None = None
    hand_over_failed: bool = False
    confirmed_at: datetime | None
    confirmed_by: str | None
    retire_at: datetime | None
    paused_at: datetime | None
    resumed_at: datetime | None
    held_from: datetime | None
    held_until: datetime | None
    retired_at: datetime | None
    undo_until: datetime | None
    undone_at: datetime | None
    ended_at: datetime | None
    cancel_reason: str | None
    reissued_as: UUID | None
    blocked_reason: str | None
    warned_for: datetime | None
    next_check_at: datetime

    @property
    def delivered_by(self) -> str | None:
        """The sink that has handed the successor over; None where somebody has fetched it."""
        who = self.claimed_by or ""
        return who.removeprefix(DELIVERED_BY) if who.startswith(DELIVERED_BY) else None

    @property
    def handed_over(self) -> bool:
        """Whether anybody has the successor's text: it was claimed, or it is in use."""
        return self.claimed_at is not None or self.new_first_used_at is not None

    @property
    def retires_if_confirmed(self) -> bool:
        """Whether to confirm it is a person's decision to retire the old key (rule 5.5)."""
        return self.state == "draining" and self.blocked_reason in DECIDABLE


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
class Warn:
    """The old key is to be retired at this time: the owner is told, once for each such time."""

    retire_at: datetime


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
class Undo:
    """The old key works again, and is not retired before everything was waited for anew."""

    reason: str


@dataclass(frozen=True)
class Complete:
    """The rotation is over; where `delete_old`, the old key ends with it."""

    why: str
    delete_old: bool = False


@dataclass(frozen=True)
class Cancel:
    """The successor goes, the old key stays as it is."""

    reason: str


Transition = Wait | Pause | Resume | Confirm | Warn | Block | Retire | Undo | Complete | Cancel


BY_POLICY = (Resume, Confirm, Warn, Block, Retire)
"""Steps whose times, or whether they are taken at all, the settings say."""


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
    """The next step of a rotation. A `Wait` is always for later than `now`, or for a fact.

    Who does not know the rotation policies, and so not the settings, waits for a worker to take the
    steps that depend on them.
    """
    step = _next_step(rotation, policy, now)
    if not policy.rotation_policies and isinstance(step, BY_POLICY):
        return Wait(rotation.next_check_at)
    return step


def _next_step(rotation: Rotation, policy: Policy, now: datetime) -> Transition:
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
    return _waiting(rotation, rotation.claim_until)


def _waiting(rotation: Rotation, until: datetime) -> Transition:
    """Nothing to do before this time, but for a person where the sink has failed."""
    return Block(HAND_OVER_FAILED, until) if rotation.hand_over_failed else Wait(until)


def _draining(rotation: Rotation, policy: Policy, now: datetime) -> Transition:
    if now >= rotation.old_expires_at:
        return Complete("old_key_expired")
    if rotation.old_compromised:  # stopped for good: nothing to wait for, and nothing to undo
        return Complete("old_key_compromised", delete_old=True)
    assert rotation.retire_at is not None  # set with the confirmation
    if now < rotation.retire_at:
        return _until_retired(rotation, rotation.retire_at, policy, now)
    recheck = min(now + RECHECK, rotation.old_expires_at)
    if rotation.hand_over_failed:
        return Block(HAND_OVER_FAILED, recheck)  # who reads the sink has the old key yet
    if not rotation.new_works:
        return Block("successor_not_working", recheck)
    if rotation.new_expires_at < rotation.old_expires_at:
        return Block("successor_ends_first", recheck)
    quiet_at = _quiet_from(rotation) + policy.rotation_quiet
    if now < quiet_at:
        if chosen(policy.rotation_policies, rotation.policy_name).in_use == "retire":
            return Retire(IN_USE)
        return Block("old_key_in_use", min(quiet_at, rotation.old_expires_at))
    if not rotation.family_used:
        return Block("uses_not_reported", recheck)
    return Retire("quiet")


def _until_retired(
    rotation: Rotation, retire_at: datetime, policy: Policy, now: datetime
) -> Transition:
    """Wait, and warn the owner on the way."""
    warn_at = retire_at - WARN_AHEAD
    counted_from = max(rotation.confirmed_at or now, rotation.resumed_at or rotation.issued_at)
    told = rotation.warned_for == retire_at
    if told or warn_at <= counted_from or policy.rotation_overlap <= WARN_AHEAD:
        return _waiting(rotation, retire_at)
    return _waiting(rotation, warn_at) if now < warn_at else Warn(retire_at)


def _quiet_from(rotation: Rotation) -> datetime:
    times = (rotation.old_last_used_at, rotation.confirmed_at, rotation.resumed_at)
    return max(time for time in times if time is not None)


def _retired(rotation: Rotation, now: datetime) -> Transition:
    assert rotation.undo_until is not None  # set with the retirement
    if now >= rotation.undo_until:
        return Complete("undo_ended", delete_old=True)
    return Wait(rotation.undo_until)
