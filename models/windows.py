"""Windows: hours of some weekdays in a timezone, such as `mon-fri 09:00-17:00 Europe/Berlin`.

What counts is what a clock on the wall there shows. An hour that it shows twice is in the window
twice, one that it skips never comes.
"""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

from .errors import Refused

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
SEARCHED = 16
"""Days after which a window must have opened: two weeks, where a clock skips it once."""

_DAY, _MINUTE = timedelta(days=1), timedelta(minutes=1)
_FORM = "write days, hours and a timezone, such as 'mon-fri 09:00-17:00 Europe/Berlin'"
_HOURS = re.compile(r"([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9])")
_WHOLE_DAY = 24 * 60

Span = tuple[datetime, datetime]
"""From the first instant that is in the window to the first that is not. UTC."""


@dataclass(frozen=True)
class Window:
    """`days` by their number from Monday, 0; `begin` and `end` in minutes from midnight.

    Where `end` is not after `begin`, it is that of the following day: the window belongs to the day
    on which it begins.
    """

    days: frozenset[int]
    begin: int
    end: int
    zone: ZoneInfo

    def contains(self, at: datetime) -> bool:
        """Whether an instant is in the window."""
        local = at.astimezone(self.zone)
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.begin < self.end:
            return day in self.days and self.begin <= minute < self.end
        return (day in self.days and minute >= self.begin) or (
            (day - 1) % 7 in self.days and minute < self.end
        )

    def following(self, at: datetime) -> datetime | None:
        """The first instant from `at` on that is in the window; None if none is for 16 days."""
        first = at.astimezone(UTC).date()
        for day in range(SEARCHED + 1):
            for opens, closes in _spans(self, first + day * _DAY):
                if at < closes:
                    return max(at, opens)
        return None

    def __str__(self) -> str:
        days = ",".join(DAYS[day] for day in sorted(self.days))
        return f"{days} {_clock(self.begin)}-{_clock(self.end)} {self.zone.key}"


def parse_window(text: object) -> Window:
    """The window that a text names: days, hours and the name of a timezone, separated by blanks.

    Days are `mon` to `sun`, ranges of them (`mon-fri`, `sat-mon`) and lists of both (`mon,thu`), or
    `daily`. Hours such as `22:00-04:00` go on after midnight; `00:00-24:00` is the whole day.
    Raises Refused (`window_invalid`), saying which of the three is wrong.
    """
    parts = text.split() if isinstance(text, str) else []
    if len(parts) != 3:
        raise _invalid("not a window")
    days, hours, zone = parts
    begin, end = _hours(hours)
    return Window(_days(days), begin, end, _zone(zone))


def _days(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            raise _invalid(f"{part!r} is no day: the days are daily, {', '.join(DAYS)}")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found |= {day % 7 for day in range(begin, end + (1 if begin <= end else 8))}
    return frozenset(found)


def _hours(text: str) -> tuple[int, int]:
    found = _HOURS.fullmatch(text)
    if found is None:
        raise _invalid(f"{text!r} are no hours: write them like 09:00-17:00")
    hours = [int(part) for part in found.groups()]
    begin, end = hours[0] * 60 + hours[1], hours[2] * 60 + hours[3]
    if begin >= _WHOLE_DAY or end > _WHOLE_DAY:
        raise _invalid(f"{text!r} are no hours: they go from 00:00 to 24:00")
    if begin == end:
        raise _invalid(f"{text!r} is empty: for the whole day write 00:00-24:00")
    return begin, end


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown, a directory of zones, or no name at all
        pass
    raise _invalid(f"there is no timezone {name!r}: the names are like Europe/Berlin, or UTC")


def _invalid(fault: str) -> Refused:
    return Refused("window_invalid", f"{fault}; {_FORM}")


def _clock(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


@lru_cache(maxsize=1000)
def _spans(window: Window, day: date) -> list[Span]:
    """What of a day (UTC) is in the window."""
    start = datetime.combine(day, time(), UTC)
    stop = start + _DAY
    edges = {start, stop, *_turns(window.zone, start, stop)}
    for local in (day - _DAY, day, day + _DAY):
        midnight = datetime.combine(local, time())
        for minutes in (window.begin, window.end):
            wall = (midnight + minutes * _MINUTE).replace(tzinfo=window.zone)
            edges |= {wall.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}
    # Between two edges nothing changes: each is judged by what the clock shows at its beginning.
    ordered = sorted(edge for edge in edges if start <= edge <= stop)
    return [(one, other) for one, other in pairwise(ordered) if window.contains(one)]


def _turns(zone: ZoneInfo, start: datetime, stop: datetime) -> list[datetime]:
    """The instant in which the zone's clocks are turned between two, if they are: to the minute."""
    before, after = (one.astimezone(zone).utcoffset() for one in (start, stop))
    if before == after:
        return []
    while stop - start > _MINUTE:
        middle = start + (stop - start) // _MINUTE // 2 * _MINUTE
        if middle.astimezone(zone).utcoffset() == before:
            start = middle
        else:
            stop = middle
    return [stop]
