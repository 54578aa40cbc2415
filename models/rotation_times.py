"""When a key is to be rotated: at a share of its life or some time ahead of its end, spread out."""

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Final, TypeAlias
from uuid import UUID

from .durations import format_duration, parse_duration
from .errors import Refused
from .windows import Window

NEVER: Final = "never"
SPREAD: Final = Fraction(1, 10)
"""By up to this share of the time until then, keys are rotated earlier: each by its own."""
WIDEST_SPREAD: Final = timedelta(days=7)
EARLIEST: Final = Fraction(1, 2)
"""Before this share of its life no key is rotated for its end being near: a time ahead may be
longer than the key lives, and its successor would be due at once."""

_SHARE = re.compile(r"([1-9][0-9]{0,3})/([1-9][0-9]{0,3})|([1-9][0-9]?)%")


@dataclass(frozen=True)
class Share:
    """At this share of the key's life."""

    of: Fraction

    def __str__(self) -> str:
        return str(self.of)


@dataclass(frozen=True)
class Ahead:
    """This long before the key's end."""

    by: timedelta

    def __str__(self) -> str:
        return format_duration(self.by)


Rotate: TypeAlias = Share | Ahead | None
"""When keys are rotated by the schedule; None: never."""


def parse_rotate(text: object) -> Rotate:
    """`never`, a share of life (`2/3`, `66%`), or the time ahead of the end (`14d`).

    Raises Refused (`rotate_invalid`).
    """
    if text == NEVER:
        return None
    if isinstance(text, str):
        found = _SHARE.fullmatch(text)
        share = found and (
            Fraction(int(found[3]), 100) if found[3] else Fraction(int(found[1]), int(found[2]))
        )
        if share and share < 1:
            return Share(share)
        if not found:
            try:
                ahead = parse_duration(text)
            except Refused:
                ahead = timedelta(0)
            if ahead:
                return Ahead(ahead)
    raise Refused(
        "rotate_invalid",
        "not a time to rotate: write 'never', a share of life between 0 and 1 such as '2/3' or "
        "'66%', or how long ahead of the end, such as '14d'",
    )


def rotate_at(
    key_id: UUID,
    created_at: datetime,
    expires_at: datetime,
    rotate: Share | Ahead,
    window: Window | None,
) -> datetime | None:
    """The moment for which a key's rotation is planned; always the same one for the same key.

    It is in the window. Where that opens too late for this key it is earlier, by up to half of the
    time that the key would have had until then; None where the window is closed all that time.
    """
    life = expires_at - created_at
    if isinstance(rotate, Share):
        until = life * float(rotate.of)
    else:
        until = max(life - rotate.by, life * float(EARLIEST))
    until -= min(until * float(SPREAD), WIDEST_SPREAD) * _place(key_id)
    if window is None:
        return created_at + until
    for earliest in (created_at + until, created_at + until / 2):
        opens = window.following(earliest)
        if opens is not None and opens < expires_at:
            return opens
    return None


def _place(key_id: UUID) -> float:
    """Where between 0 and 1 a key stands: evenly spread, and the same for ever."""
    return int.from_bytes(hashlib.sha256(key_id.bytes).digest()[:6], "big") / 2.0**48
