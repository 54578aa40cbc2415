"""The claims of a compact JWS, decoded and not verified: whether to believe it is no adapter's."""

import base64
import binascii
import re
from typing import Any

from . import reading
from .reading import Unreadable

_COMPACT = re.compile(rb"[A-Za-z0-9_-]{2,}={0,2}\.[A-Za-z0-9_-]{2,}={0,2}\.[A-Za-z0-9_=-]*")
_ENCRYPTED = re.compile(rb"(?:[A-Za-z0-9_-]*\.){4}[A-Za-z0-9_-]*")


def is_compact(text: bytes) -> bool:
    """Whether this is a JWS, or looks like its encrypted sister."""
    stripped = text.strip()
    return bool(_COMPACT.fullmatch(stripped) or _ENCRYPTED.fullmatch(stripped))


def claims(text: bytes) -> dict[str, Any]:
    """The payload as a JSON object; Unreadable as `bad_jwt` or as any JSON is refused."""
    if len(text) > reading.MAX_BODY:
        raise Unreadable("too_large", f"the token has over {reading.MAX_BODY} bytes")
    stripped = text.strip()
    if _ENCRYPTED.fullmatch(stripped):
        raise Unreadable("bad_jwt", "the token is encrypted (JWE); have it sent signed only")
    if not _COMPACT.fullmatch(stripped):
        raise Unreadable("bad_jwt", "this is no compact JWS; send header.payload.signature")
    header, payload, _ = stripped.split(b".")
    if not isinstance(reading.an_object(reading.json_value(_decoded(header))).get("alg"), str):
        raise Unreadable("bad_jwt", "the token's header names no alg; send a signed JWT")
    return reading.an_object(reading.json_value(_decoded(payload)))


def _decoded(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part.rstrip(b"=") + b"=" * (-len(part.rstrip(b"=")) % 4))
    except (binascii.Error, ValueError):
        raise Unreadable("bad_jwt", "the token is no base64url; send it unchanged") from None
