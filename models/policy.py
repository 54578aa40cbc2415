"""The numbers of the rules: every duration and limit that an operator may set, with its default."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType
from typing import Final

from .rotation_policy import DEFAULT, RotationPolicy

DAY = timedelta(days=1)

DEFAULT_ALONE: Final[Mapping[str, RotationPolicy]] = MappingProxyType({DEFAULT: RotationPolicy()})
"""What `Policy.rotation_policies` is where nobody said anything about them."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What `models` needs to know of the settings. Durations are `timedelta`; times are UTC."""

    key_prefix: str = "kt"

    settle_batch: int = 5000
    """Keys per transaction of a cascade; 5,000 audited keys commit in at most half a second."""
    apply_batch: int = 1000
    """Account events claimed and applied by one transaction."""
    deliver_batch: int = 500
    """Outgoing messages leased at a time."""
    seal_batch: int = 10_000
    """Audit entries in one seal, and in the transaction that makes it."""
    page_keys: int = 500
    """Key ids in one outgoing page."""
    notice_keys: int = 100
    """Keys that one message to an owner names; it counts all of them."""

    notice_thresholds: tuple[timedelta, ...] = (30 * DAY, 7 * DAY, DAY)
    notice_last_share: float = 0.2
    """Where no threshold applies, a key of a day or more gets one notice at this share of life."""
    notice_last_share_min_life: timedelta = DAY

    rotation_overlap: timedelta = 7 * DAY
    rotation_quiet: timedelta = timedelta(hours=25)
    rotation_min_life: timedelta = timedelta(hours=1)
    rotations_per_key_per_day: int = 3
    """New rotations of one family of keys in a day, as products ask; operators are not limited."""
    sealed_for: timedelta = timedelta(hours=72)
    undo_for: timedelta = 7 * DAY
    rotation_policies: Mapping[str, RotationPolicy] = field(default_factory=lambda: DEFAULT_ALONE)
    """By name; a key, an account or a role names one. Empty: not known here. Who does not know them
    leaves to a worker what depends on them: the sink of a new key, and when the old one goes."""

    wave_keys: int = 25
    """Keys of one wave of a bulk operation."""
    bulk_rate: float = 5.0
    """Keys a second that bulk operations rotate, all of them and all workers together."""
    wave_stop_share: float = 0.1
    """Where a larger share of a wave fails, its operation stops."""
    plan_life: timedelta = timedelta(minutes=15)
    """How long a plan of a bulk operation can be applied."""
    plan_growth: float = 0.05
    """A plan is not applied where its keys have grown by a larger share."""

    rotation_starts: int = 60
    """Scheduled rotations that start within a minute at most, by all workers together."""

    deletion_delay: timedelta = 7 * DAY
    """How long a hold of kind `deleted` stands before the account's keys are deleted."""
    purge_after: timedelta = 90 * DAY
    future_tolerance: timedelta = timedelta(minutes=5)
    burst_accounts: int = 100
    burst_window: timedelta = timedelta(minutes=10)
    silent_after: Mapping[str, timedelta] = field(default_factory=dict)
    """By source: the longest time without a message that is normal. Others are not watched."""

    lease: timedelta = timedelta(seconds=120)
    """How long claimed work is one worker's own. A statement ends well before it."""
    use_interval: timedelta = timedelta(minutes=1)
    """A key's use is recorded at most once in this time."""
    expiry_alarm_share: float = 0.2
    expiry_alarm_min: int = 100
    settled_kept: timedelta = 30 * DAY
    """How long delivered outgoing rows and finished account events stay readable."""
