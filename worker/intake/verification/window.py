"""The time that a signature holds, and whether it is near enough to when the message came."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from models.durations import format_duration
from worker.intake.verification.message import Message, Unverified
from worker.setting_proofs import DEFAULT_MAX_AGE

AHEAD: Final = timedelta(minutes=5)
"""How far a producer's clock may run ahead of the broker's."""

_NUMBER = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
_MILLISECONDS_FROM: Final = 100_000_000_000
"""As seconds the year 5138; as milliseconds 1973."""


def instant(text: str) -> datetime:
    """A time in seconds or milliseconds since 1970, or in RFC 3339; Unverified if it is none."""
    try:
        if _NUMBER.fullmatch(text):
            number = float(text)
            seconds = number / 1000 if number >= _MILLISECONDS_FROM else number
            return datetime.fromtimestamp(seconds, UTC)
        if text.isascii() and len(text) <= 40:
            found = datetime.fromisoformat(text)
            if found.tzinfo is not None:
                return found.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise Unverified("the signature's time is no time: seconds, milliseconds or RFC 3339 is due")


def check_age(message: Message, signed_at: datetime, max_age: timedelta | None) -> None:
    """Unverified unless the message came within `max_age` of its signature.

    Without a `max_age` only a message is judged of which it is known when it came: one that waited
    on a queue, since intake was down, must not be lost for that.
    """
    if message.replayed or max_age == timedelta(0) or not (max_age or message.arrived):
        return
    came = message.arrived or datetime.now(UTC)
    longest = max_age or DEFAULT_MAX_AGE
    if came - signed_at > longest:
        raise Unverified(
            f"the signature is older than {format_duration(longest)} (max_age); an operator who "
            "knows why may replay it"
        )
    if signed_at - came > AHEAD:
        raise Unverified(
            f"the signature is over {format_duration(AHEAD)} in the future; set the clocks right"
        )
