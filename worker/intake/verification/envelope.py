"""The envelope in which a relay puts a webhook on a queue: `{"headers": {...}, "body_b64": "..."}`.

So its raw bytes, which are what was signed, come through whatever a queue does to text.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Final

from worker.intake.providers.reading import MAX_BODY, Unreadable

MEMBERS: Final = {"headers", "body_b64"}
LARGEST: Final = 2 * MAX_BODY
"""Bytes of an envelope: base64 makes four bytes of three, and the headers come on top."""

MAX_HEADERS: Final = 200


def opened(headers: Mapping[str, str], body: bytes) -> tuple[Mapping[str, str], bytes]:
    """The headers and the raw body that a message stands for: those in the envelope, if it is one.

    Raises Unreadable (`bad_envelope`, `too_large`) where it is one that cannot be opened.
    """
    envelope = _envelope(body)
    if envelope is None:
        return headers, body
    return _headers(envelope["headers"]), _body(envelope["body_b64"])


def _envelope(body: bytes) -> dict[str, Any] | None:
    if b'"body_b64"' not in body[:LARGEST] or body.lstrip()[:1] != b"{":
        return None
    if len(body) > LARGEST:
        raise Unreadable("too_large", f"the envelope has over {LARGEST} bytes; send less at once")
    try:
        found = json.loads(body, object_pairs_hook=_once)
    except Unreadable:
        raise
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and set(found) == MEMBERS else None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _bad("it names a member twice")
    return members


def _headers(given: object) -> dict[str, str]:
    if not isinstance(given, dict) or len(given) > MAX_HEADERS:
        raise _bad(f"`headers` must be an object of up to {MAX_HEADERS} texts")
    headers: dict[str, str] = {}
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(one, str) for one in values):
            raise _bad("a header must be a text, or a list of texts")
        if name.lower() in headers:
            raise _bad("it names a header twice; give its values as a list")
        headers[name.lower()] = ", ".join(values)
    return headers


def _body(given: object) -> bytes:
    if not isinstance(given, str):
        raise _bad("`body_b64` must be a text")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError):
        raise _bad("`body_b64` is not base64 (with +, / and padding)") from None


def _bad(why: str) -> Unreadable:
    return Unreadable("bad_envelope", f"the relay's envelope cannot be opened: {why}")
