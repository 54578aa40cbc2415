"""What of a message may be kept: leak reports carry live secrets, which no row may hold.

Of a report that is JSON everything is kept but its texts, except those that say what it is; a
token becomes its SHA-256, so that the report can still be read. GitHub's webhooks come from the
same source, and their ids are numbers. Of anything else only its size and digest are kept.
"""

import base64
import binascii
import hashlib
import re
from typing import Any

from . import reading
from .reading import Unreadable

_TELLING = {"action", "detector", "event", "name", "source", "specversion", "timestamp", "type"}
_WORD = re.compile(r"[A-Za-z0-9 ._:+/-]{1,40}")
_LONG_RUN = re.compile(r"[A-Za-z0-9_-]{20,}")
_LARGEST_ID = 10**15
_SECRET = re.compile(rb"(?i)token|secret")


def kept(provider: str, body: bytes) -> bytes:
    """The message as it may be stored beside an event of it that was refused or not stored."""
    reports = provider in ("github", "gitguardian")
    enveloped = provider == "cloudevents" and (_SECRET.search(body) or b"data_base64" in body)
    return _report(body) if reports or enveloped else body


def _report(body: bytes) -> bytes:
    try:
        return reading.as_json(_harmless(reading.json_value(body), ""))
    except Unreadable:
        digest = hashlib.sha256(body).hexdigest()
        return reading.as_json({"withheld": "it may hold a secret", "bytes": len(body),
                                "sha256": digest})  # fmt: skip


def _harmless(value: Any, name: str) -> Any:
    if isinstance(value, dict):
        return dict(_member(each, inner) for each, inner in value.items())
    if isinstance(value, list):
        return [_harmless(one, "") for one in value]
    if isinstance(value, str):
        return value if name in _TELLING and _is_word(value) else "[withheld]"
    if isinstance(value, int) and abs(value) < _LARGEST_ID and not _SECRET.search(_bytes(name)):
        return value
    return value if value is None else "[withheld]"


def _member(name: str, value: Any) -> tuple[str, Any]:
    if name == "token" and isinstance(value, str) and value.strip():
        token = _bytes(value.strip())
        return "token_sha256", hashlib.sha256(token).hexdigest()
    if name == "token_sha256":
        return name, value if isinstance(value, str) and len(value) == 64 else "[withheld]"
    if name == "data_base64" and isinstance(value, str):
        return "data", _harmless(_decoded(value), "")
    shown = name if _is_word(name) else "[withheld]"
    return shown, _harmless(value, name.lower())


def _decoded(text: str) -> Any:
    try:
        return reading.json_value(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        return "[withheld]"


def _is_word(text: str) -> bool:
    """Short, and without any run of signs that could be a key."""
    return bool(_WORD.fullmatch(text)) and not _LONG_RUN.search(text)


def _bytes(text: str) -> bytes:
    """Also of half a surrogate pair, which JSON can name and UTF-8 cannot hold."""
    return text.encode("utf-8", "surrogatepass")
