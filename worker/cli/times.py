"""Times as people say them: how long ago, how long from now."""

from datetime import UTC, datetime, timedelta

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def now() -> datetime:
    """This machine's time, in UTC. Only for showing: what is decided goes by the database's."""
    return datetime.now(UTC)


def length(duration: timedelta) -> str:
    """A duration, rounded, in its largest unit that gives two or more: `90 minutes`, `3 days`.

    Less than nothing is `0 seconds`: two clocks rarely agree to the second.
    """
    seconds = max(duration.total_seconds(), 0)
    for unit, size in _UNITS:
        if seconds >= 2 * size or unit == "second":
            count = round(seconds / size)
            return f"{count} {unit}" if count == 1 else f"{count} {unit}s"
    raise AssertionError("the last unit always answers")


def ago(moment: datetime | None) -> str:
    """How long ago something happened: `3 minutes ago`, or `never`."""
    return "never" if moment is None else f"{length(now() - moment)} ago"


def left(moment: datetime) -> str:
    """How long until then: `29 days`, or `ended` where it is past."""
    remaining = moment - now()
    return "ended" if remaining <= timedelta(0) else length(remaining)
