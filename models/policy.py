"""The numbers of the rules: every duration and limit that an operator may set, with its default."""

from dataclasses import dataclass
from datetime import timedelta

DAY = timedelta(days=1)


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
    sealed_for: timedelta = timedelta(hours=72)
    undo_for: timedelta = 7 * DAY

    deletion_delay: timedelta = 7 * DAY
    """How long a hold of kind `deleted` stands before the account's keys are deleted."""
    purge_after: timedelta = 90 * DAY
    future_tolerance: timedelta = timedelta(minutes=5)
    burst_accounts: int = 100
    burst_window: timedelta = timedelta(minutes=10)

    lease: timedelta = timedelta(seconds=120)
    """How long claimed work is one worker's own. A statement ends well before it."""
    use_interval: timedelta = timedelta(minutes=1)
    """A key's use is recorded at most once in this time."""
    expiry_alarm_share: float = 0.2
    expiry_alarm_min: int = 100
    settled_kept: timedelta = 30 * DAY
    """How long delivered outgoing rows and finished account events stay readable."""
