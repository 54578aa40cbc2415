"""Durations as people write them in settings and commands: `5s`, `15m`, `24h`, `7d`, `2w`."""

import re
from datetime import timedelta

from .errors import Refused

LONGEST = timedelta(weeks=520)
"""The longest duration that is accepted: ten years. More than that is a typing error."""

ACCEPTED_FORM = "a whole number and one unit, such as 30s, 15m, 24h, 7d or 2w, from 0s to 520w"

_SECONDS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}  # the largest first
_FORM = re.compile(r"([0-9]{1,9})([smhdw])")


def parse_duration(text: str) -> timedelta:
    """The length of time that `text` names.

    Raises Refused (`duration_invalid`), naming the accepted form, for anything else than a whole
    number with one unit between 0s and 520w.
    """
    found = _FORM.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise Refused("duration_invalid", f"not a duration: write {ACCEPTED_FORM}")
    seconds = int(found[1]) * _SECONDS[found[2]]
    if seconds > LONGEST.total_seconds():
        raise Refused("duration_invalid", f"the duration is too long: write {ACCEPTED_FORM}")
    return timedelta(seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """The text that `parse_duration` reads as `duration`, in the largest unit that fits.

    So 7 days become `1w`, and 36 hours stay `36h`. Raises Refused (`duration_invalid`) for what
    cannot be written this way: less than zero, more than 520 weeks, or parts of a second.
    """
    if not timedelta(0) <= duration <= LONGEST or duration.microseconds:
        message = f"the duration has no short form: it must be {ACCEPTED_FORM}"
        raise Refused("duration_invalid", message)
    seconds = int(duration.total_seconds())
    if not seconds:
        return "0s"
    unit, length = next(pair for pair in _SECONDS.items() if seconds % pair[1] == 0)
    return f"{seconds // length}{unit}"
