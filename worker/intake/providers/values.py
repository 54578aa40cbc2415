"""Single members of a message that was read: ids, times, names.

Members that an adapter does not look at may hold anything. Those it takes are checked here, and
whatever is wrong with them comes out as `Unreadable`.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Literal
from urllib.parse import unquote

from models.errors import Refused
from models.events import (
    MAX_IDENTIFIER,
    MAX_NOTE,
    MAX_SEQUENCE,
    AccountEvent,
    Action,
    Subject,
)
from models.identifiers import normalise_email

from .reading import Unreadable

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)
_SECONDS_FROM, _MILLISECONDS_FROM, _MILLISECONDS_TO = 10**8, 10**11, 10**13
"""1973 in seconds, 1973 in milliseconds, 2286 in milliseconds. Nothing shorter or longer is taken
for a time: 20261123 is a day, and 20261123084000 a day and an hour."""

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,12})?)"
    r"([Zz]|[+-][0-9]{2}:?[0-9]{2}| ?(?:UTC|GMT))?"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,17}(\.[0-9]{1,12})?")


def text(value: Any, name: str) -> str | None:
    """An identifier as text; None where the member is missing, null or blank.

    Whole numbers are taken as their digits: producers send ids of both kinds.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise Unreadable("wrong_type", f"{name} must be a string or a whole number")
    found = str(value)
    if len(found) > MAX_IDENTIFIER:
        raise Unreadable("too_long", f"{name} is longer than {MAX_IDENTIFIER} characters")
    if not _storable(found):
        raise Unreadable(
            "bad_characters", f"{name} holds a NUL or half a surrogate pair; send plain text"
        )
    return found if found.strip() else None


def needed_text(value: Any, name: str, code: str, mend: str) -> str:
    """The same of a member without which an event means nothing."""
    found = text(value, name)
    if found is None:
        raise Unreadable(code, f"there is no {name}; {mend}")
    return found


def decoded(value: str, name: str) -> str | None:
    """A part of a path as the identifier it stands for: without its percent signs."""
    return text(unquote(value, errors="replace"), name)


def note(value: Any) -> str | None:
    """A text for information only: cut and cleaned, since it must never cost an event."""
    if not isinstance(value, str):
        return None
    cleaned = value[:MAX_NOTE].replace("\0", "").encode(errors="replace").decode().strip()
    return cleaned or None


def email_alias(value: Any) -> tuple[Subject, ...]:
    """The second name that an e-mail address gives; none if it is not one plain address."""
    if not isinstance(value, str):
        return ()
    try:
        return (Subject(format="email", value=normalise_email(value)),)
    except Refused:
        return ()


def sha256(value: Any) -> str:
    """The digest of a key that a report of its leak names, in small hexadecimal digits."""
    mend = "send SHA-256 of the key's text in 64 hexadecimal digits, never the text itself"
    digest = needed_text(value, "digest", "missing_digest", mend).lower()
    if not _SHA256.fullmatch(digest):
        raise Unreadable("bad_digest", f"the digest is none; {mend}")
    return digest


def sequence(value: Any) -> int | None:
    """The producer's counter; None where it is missing, null or blank."""
    found = text(value, "sequence")
    if found is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", found) or int(found) > MAX_SEQUENCE:
        raise Unreadable("bad_sequence", f"sequence must be a number from 0 to {MAX_SEQUENCE}")
    return int(found)


Unit = Literal["auto", "seconds", "milliseconds", "iso"]


def instant(value: Any, name: str, unit: Unit = "auto") -> datetime | None:
    """A time in UTC: RFC 3339 with its zone, or seconds or milliseconds since 1970 (of 1973 to
    2286, which tell the two apart). A `unit` allows that one alone.

    None where the member is missing, null or blank. `bad_timestamp` for anything else, for times
    without a zone, and for those outside the years 1970 to 9998: such a time is a default that
    the producer forgot to fill, or cannot be stored.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    number = _number(value)
    if number is None:
        moment = _rfc3339(value, name) if unit in ("auto", "iso") else None
    else:
        moment = _since_epoch(number, unit) if unit != "iso" else None
    if moment is None or not _EPOCH <= moment < _LATEST:
        raise Unreadable(
            "bad_timestamp",
            f"{name} is no time that an event can have; send RFC 3339 with a zone, like "
            "2026-11-23T08:40:00Z, or leave it out",
        )
    return moment


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    written = repr(value) if isinstance(value, int | float) else value
    if not isinstance(written, str) or not _NUMBER.fullmatch(written.strip()):
        return None
    return Decimal(written.strip())


def _since_epoch(number: Decimal, unit: Unit) -> datetime | None:
    if not _SECONDS_FROM <= number < _MILLISECONDS_TO:
        return None
    milliseconds = number >= _MILLISECONDS_FROM
    if unit != "auto" and milliseconds != (unit == "milliseconds"):
        return None
    seconds = number / 1000 if milliseconds else number
    return _EPOCH + timedelta(microseconds=int(seconds * 1_000_000))


def _rfc3339(value: Any, name: str) -> datetime | None:
    match = _RFC3339.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return None
    day, time, zone = match.groups()
    if zone is None:
        raise Unreadable("bad_timestamp", f"{name} has no zone; add one, like 2026-11-23T08:40:00Z")
    offset = "Z" if zone.strip() in ("UTC", "GMT") else zone.upper()
    try:
        return datetime.fromisoformat(f"{day}T{time}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def without_effect(raw_type: str, event_id: Any, occurred_at: Any) -> AccountEvent:
    """An event that is kept for the record only: what cannot be read of it does not matter."""
    try:
        return AccountEvent(
            action=Action.NONE,
            event_id=text(event_id, "id"),
            occurred_at=instant(occurred_at, "time"),
            raw_type=raw_type,
        )
    except Unreadable:
        return AccountEvent(action=Action.NONE, raw_type=raw_type)


def quoted(value: str) -> str:
    """A word of the producer's as a message may repeat it: short, printable, in quotes."""
    return ascii(value[:60])


def member(value: Any, name: str) -> Any:
    """A member of an object, or None where there is no object or no such member."""
    return value.get(name) if isinstance(value, Mapping) else None


def _storable(found: str) -> bool:
    return "\0" not in found and not any("\ud800" <= sign <= "\udfff" for sign in found)
