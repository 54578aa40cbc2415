"""Reading what strangers send: bounds first, then JSON, then the events of a batch one by one.

Whatever is wrong comes out as `Unreadable`, and as nothing else.
"""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeAlias

from models.errors import Refused
from models.events import AccountEvent

MAX_BODY = 1024 * 1024
"""Bytes of one message (issue 2: messages of 10 MB are refused before they are parsed)."""

MAX_DEPTH = 64
"""Levels of nesting. Real events have up to 12; Python's own parser gives up near 1,000."""

MAX_MEMBERS = 1000
"""Events of one batch: the largest page of Okta's System Log."""

MAX_DIGITS = 400
"""Digits of a whole number. Ids may exceed 64 bits; Python refuses to read over 4,300 digits."""

_LINE = re.compile(rb"\{.*\}")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Unreadable(Refused):
    """A message, or one event of a batch, that cannot be understood; nothing of it is applied.

    `member` is that one event as JSON, where it came in a batch: its adapter reads it alone, so
    that it can be kept and replayed without the rest of the batch.
    """

    def __init__(self, code: str, message: str, member: bytes | None = None) -> None:
        super().__init__(code, message)
        self.member = member


Result: TypeAlias = AccountEvent | Unreadable


def json_value(body: bytes) -> Any:
    """The JSON value of a body, or `Unreadable`: too_large, empty_body, too_deep, not_json,
    duplicate_members."""
    if len(body) > MAX_BODY:
        raise Unreadable(
            "too_large", f"the message has over {MAX_BODY} bytes; send its events one by one"
        )
    if not body.strip():
        raise Unreadable("empty_body", "the message is empty; send one JSON object")
    if _depth(body) > MAX_DEPTH:
        raise Unreadable("too_deep", f"the JSON is nested over {MAX_DEPTH} levels; flatten it")
    try:
        return json.loads(
            body.decode("utf-8-sig"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_whole,
        )
    except ValueError as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("not_json", _why_not_json(error)) from None


def json_lines(body: bytes) -> list[bytes] | None:
    """The lines of JSON Lines, an object on each; None where the body is anything else.

    No JSON value looks like that: between two objects of one there is a comma.
    """
    lines = [line.strip() for line in body[: MAX_BODY + 1].split(b"\n") if line.strip()]
    if len(body) > MAX_BODY or len(lines) < 2 or not all(map(_LINE.fullmatch, lines)):
        return None
    return lines


def _depth(body: bytes) -> int:
    """How deep the brackets outside of strings go; cheap enough for a megabyte of them."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for bracket in _STRING.sub(b"", body).translate(None, _NOT_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Unreadable(
            "duplicate_members",
            "an object names the same member twice, so that nobody can say which counts; "
            "send it once",
        )
    return members


def _no_constant(name: str) -> NoReturn:
    raise Unreadable("not_json", f"{name} is no JSON; leave the member out or send null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _number_too_large()
    return number


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _number_too_large()
    return int(digits)


def _number_too_large() -> Unreadable:
    return Unreadable(
        "number_too_large",
        f"a number is beyond 10^308 or has over {MAX_DIGITS} digits; send it as a string",
    )


def _why_not_json(error: ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"the message is not UTF-8 at byte {error.start}; send JSON in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"the message is not JSON ({error.msg} at character {error.pos}); mend the producer"
    return "the message is not JSON; mend the producer"


def as_json(value: Any) -> bytes:
    """A value that was read, as an adapter can read it again."""
    return json.dumps(value).encode("ascii")


def an_object(value: Any) -> dict[str, Any]:
    """The value itself, if it is a JSON object."""
    if not isinstance(value, dict):
        raise Unreadable("not_an_object", "an event must be a JSON object; send {...}")
    return value


def each(members: Sequence[Any], read: Callable[[Any], Sequence[Result]]) -> list[Result]:
    """Read the events of a batch one by one: the bad ones do not take the good ones with them.

    A member is a value that was read, or bytes which were not.
    """
    if not members:
        raise Unreadable("no_events", "the batch is empty; send at least one event")
    if len(members) > MAX_MEMBERS:
        raise Unreadable(
            "too_many_events", f"the batch has over {MAX_MEMBERS} events; send smaller ones"
        )
    results: list[Result] = []
    for member in members:
        try:
            results.extend(read(member))
        except Unreadable as error:
            raw = member if isinstance(member, bytes) else as_json(member)
            results.append(Unreadable(error.code, error.message, raw))
    return results
