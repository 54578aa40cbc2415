"""Which keys a run of `notices.plan` has to look at: those that passed a threshold since the last.

A threshold is passed at an instant, so that the ends of the keys that pass it between two runs lie
between two instants as well. Once a day a run looks at every key that could want a notice: what is
missed otherwise (thresholds that were changed, an end that was moved by hand) is found by then.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from .base import Tx
from .creation import LONGEST_VALIDITY
from .policy import Policy

JOB = "notices.plan"
LOOK_BACK = timedelta(days=7)
"""How long after its end a key's owner is still told of it, after a downtime."""
WHOLE_EVERY = timedelta(days=1)
"""How often all keys that end within the largest threshold are looked at."""
OVERLAP = timedelta(minutes=1)
"""How far ranges reach back into the last run's: a key's creation may have been committed late."""

ENDED = "k.status = 'expired'"
LIVE = "k.status NOT IN ('expired', 'deleted')"


@dataclass(frozen=True)
class Range:
    """Keys that end after `after` and not after `until`, by the index of one `scope`."""

    scope: str
    after: datetime
    until: datetime


@dataclass(frozen=True)
class Mark:
    """What a whole run leaves for the next: up to which instant it looked, and by which rules."""

    looked_to: str
    whole_at: str
    rules: str


def begin(tx: Tx, policy: Policy) -> tuple[list[Range], Mark]:
    """The ranges that a run has to look through, and the mark to `leave` when it is through."""
    now, rules = tx.now(), _rules(policy)
    stored = tx.scalar("SELECT mark FROM keyturn.schedule_runs WHERE job = :job", job=JOB)
    last = Mark(**stored) if stored else None
    if last is None or last.rules != rules or not _follows(last, now):
        mark = Mark(now.isoformat(), now.isoformat(), rules)
        first, furthest = now - LOOK_BACK, now + max(until for _, until in _spans(policy))
        return [Range(ENDED, first, furthest), Range(LIVE, first, furthest)], mark
    since = max(datetime.fromisoformat(last.looked_to) - OVERLAP, now - LOOK_BACK)
    live = [
        Range(LIVE, since + nearest, now + furthest) for nearest, furthest in sorted(_spans(policy))
    ]
    ended = Range(ENDED, since, now)
    return [ended, *_joined(live)], Mark(now.isoformat(), last.whole_at, rules)


def leave(tx: Tx, mark: Mark) -> None:
    """Note that a run is through: call it in the transaction of its last page."""
    tx.execute(
        """
        INSERT INTO keyturn.schedule_runs (job, mark) VALUES (:job, CAST(:mark AS jsonb))
        ON CONFLICT (job) DO UPDATE SET mark = excluded.mark
        """,
        job=JOB,
        mark=json.dumps(asdict(mark)),
    )


def _follows(last: Mark, now: datetime) -> bool:
    """Whether the last mark is of today, and no clock went back behind it."""
    whole_at = datetime.fromisoformat(last.whole_at)
    return datetime.fromisoformat(last.looked_to) <= now < whole_at + WHOLE_EVERY


def _spans(policy: Policy) -> list[tuple[timedelta, timedelta]]:
    """How long before its end a key can be due each notice: at least, and at most."""
    ended = (timedelta(0), timedelta(0))
    # Without a threshold that applies, a key lives less than twice the smallest one.
    lives = min((2 * t for t in policy.notice_thresholds), default=LONGEST_VALIDITY)
    share = policy.notice_last_share
    by_share = (policy.notice_last_share_min_life * share, min(lives, LONGEST_VALIDITY) * share)
    certain = [(threshold, threshold) for threshold in policy.notice_thresholds]
    return [ended, *certain, *([by_share] if by_share[0] <= by_share[1] else [])]


def _joined(ranges: Sequence[Range]) -> list[Range]:
    """The same keys, each in one range only; `ranges` stand in the order of their beginnings."""
    joined: list[Range] = []
    for one in ranges:
        if joined and one.after <= joined[-1].until:
            last = joined.pop()
            one = Range(last.scope, last.after, max(last.until, one.until))
        joined.append(one)
    return joined


def _rules(policy: Policy) -> str:
    return repr(
        (policy.notice_thresholds, policy.notice_last_share, policy.notice_last_share_min_life)
    )
