"""One message as RabbitMQ delivers it: its name, its headers, its body as the producer wrote it."""

import hashlib
import json
import re
import secrets
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Any, Final

from models import deliveries
from models.base import Database
from models.inbox import Received
from worker.intake.providers import Unreadable
from worker.intake.verification.envelope import LARGEST

ID_LENGTH: Final = 200
"""Characters of a `message_id` that are kept as they are; AMQP allows 255 bytes."""

LOOK_BACK: Final = 600.0
"""Seconds: a message without an id that comes again is the one like it that was stored within this
time. Longer than a restart; no longer, since what is the same may also be meant anew."""

_MILLISECONDS: Final = 10**11
"""A timestamp from here on (the year 5138) is in milliseconds, as some producers write it."""

_OF_THE_BROKER: Final = ("x-delivery-count", "x-death", "x-first-death", "x-last-death")
"""How headers begin that a queue itself adds to a message that comes again."""

_PLAIN: Final = ("", "identity", "binary", "8bit", "7bit", "utf-8", "utf8", "ascii", "us-ascii")
_CHARSET: Final = re.compile(
    r"utf-?(16|32)(-?[lb]e)?|utf-8-sig|latin-?1|(iso-8859-|cp|windows-)\d+"
)
_MAX_ENCODINGS: Final = 3


@dataclass(eq=False)
class Delivery:
    """A message that is not acknowledged yet."""

    message: Any = field(repr=False)
    name: str = ""
    """Its delivery id; the same when it is delivered again."""

    received: list[Received] | None = field(default=None, repr=False)
    """Its members, once it is read."""

    not_before: float = 0.0
    """By time.monotonic(): when it is tried again, where its key could not be had."""

    @property
    def redelivered(self) -> bool:
        """Whether it was delivered before, to whomever. If not, nobody has ever seen it."""
        return bool(self.message.delivery_info["redelivered"])

    def acknowledge(self) -> None:
        """It is stored: the broker may forget it."""
        self.message.channel.basic_ack(self.message.delivery_tag)

    def set_aside(self) -> None:
        """It cannot be stored in any form: the broker keeps it for a person to look at."""
        self.message.channel.basic_reject(self.message.delivery_tag, requeue=False)

    @property
    def size(self) -> int:
        """Bytes of its body as it came."""
        return int(self.message.body_size)

    @property
    def message_id(self) -> str:
        """What its producer calls it, or an empty text."""
        return str(self.message.properties.get("message_id") or "")

    @property
    def arrived(self) -> datetime | None:
        """Its property `timestamp`: the producer's, or the broker's where that sets it."""
        found = self.message.properties.get("timestamp")
        if not found:
            return None
        try:
            return datetime.fromtimestamp(found / 1000 if found >= _MILLISECONDS else found, UTC)
        except (ValueError, OverflowError, OSError):
            return None

    @property
    def headers(self) -> dict[str, str]:
        """Its headers as texts, by names in small letters, and its content type as one of them."""
        given = self.message.properties.get("application_headers") or {}
        found = {_name(name): _text(value) for name, value in given.items()}
        kind = self.message.properties.get("content_type")
        return {"content-type": kind, **found} if kind else found

    def fingerprint(self) -> str:
        """A digest of all that is the same whenever this message is delivered.

        By its `message_id` and body, where it has an id; else by its properties, headers and
        routing key as well.
        """
        body = self.message.digest.hexdigest()
        if self.message_id:
            whole: list[object] = [self.message_id, body]
        else:
            properties = {
                name: _text(value)
                for name, value in self.message.properties.items()
                if name != "application_headers"
            }
            headers = {
                name: value
                for name, value in self.headers.items()
                if not name.startswith(_OF_THE_BROKER)
            }
            where = self.message.delivery_info
            whole = [properties, headers, where["exchange"], where["routing_key"], body]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:40]

    def body(self) -> bytes:
        """Its body, unpacked; Unreadable as `too_large` or `bad_encoding`."""
        if self.size > LARGEST:
            digest = self.message.digest.hexdigest()
            raise Unreadable(
                "too_large",
                f"the message has {self.size} bytes (SHA-256 {digest}), over {LARGEST}; "
                "it is not kept; send its events one by one",
            )
        return unpacked(self.raw, str(self.message.properties.get("content_encoding") or ""))

    @property
    def raw(self) -> bytes:
        """Its body as it came; empty where that is over LARGEST."""
        return bytes(self.message.body) if self.message.body else b""


class Names:
    """Gives messages their delivery ids, over one connection.

    A message with an id of its producer's is known by that, and by its body, for ever. One without
    is a new one whenever the broker delivers it for the first time: disable, enable, disable are
    three. Where it comes again, nobody can say whether it was stored before the connection was
    lost; then it is the one like it that another connection stored within LOOK_BACK, if any.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._own = secrets.token_hex(4)
        self._numbers = count()

    def give(self, source: str, found: Sequence[Delivery]) -> None:
        """Name those that have no name yet. Raises what the database failed at."""
        unnamed = [one for one in found if not one.name]
        prints = {id(one): f"amqp:{one.fingerprint()}" for one in unnamed}
        again = [one for one in unnamed if one.redelivered and not one.message_id]
        stored = self._stored(source, sorted({prints[id(one)] for one in again}))
        for one in unnamed:
            name = prints[id(one)]
            if one.message_id:
                one.name = name
            elif one.redelivered and stored.get(name):
                one.name = stored[name].pop(0)
            else:
                one.name = f"{name}/{_milliseconds(0)}{self._own}{next(self._numbers) % 2**32:08x}"

    def _stored(self, source: str, names: Sequence[str]) -> dict[str, list[str]]:
        if not names:
            return {}
        since, until = _milliseconds(LOOK_BACK), "f" * 28
        found = self._database.run(
            lambda tx: deliveries.stored(tx, source, names, since=since, until=until)
        )
        # What this connection stored it has acknowledged as well: that does not come again.
        return {
            name: [one for one in known if one[-16:-8] != self._own]
            for name, known in found.items()
        }


def _milliseconds(ago: float) -> str:
    """A moment as 12 hexadecimal digits, which sort as time goes."""
    return f"{int((time.time() - ago) * 1000):012x}"


def unpacked(body: bytes, encoding: str) -> bytes:
    """A body without its `content_encoding`: gzip or deflate, or a charset, or several of them.

    Raises Unreadable: `bad_encoding`, or `too_large` when unpacked. What names a charset other than
    UTF-8 comes out as UTF-8.
    """
    names = [name.strip().lower() for name in encoding.split(",")]
    if len(names) > _MAX_ENCODINGS:
        raise _bad(encoding, "it names over three encodings")
    for name in reversed(names):
        if name in ("gzip", "x-gzip", "application/x-gzip"):
            body = _inflated(body, name, 16 + zlib.MAX_WBITS)
        elif name == "deflate":
            body = _deflated(body)
        elif name not in _PLAIN:
            body = _recoded(body, name)
    return body


def _deflated(body: bytes) -> bytes:
    """By RFC 9110 with a header of zlib; some write it without."""
    try:
        return _inflated(body, "deflate", zlib.MAX_WBITS)
    except Unreadable as error:
        if error.code != "bad_encoding":
            raise
    return _inflated(body, "deflate", -zlib.MAX_WBITS)


def _inflated(body: bytes, name: str, bits: int) -> bytes:
    inflating = zlib.decompressobj(bits)
    try:
        whole = inflating.decompress(body, LARGEST + 1)
    except zlib.error:
        raise _bad(name, "its bytes are not that") from None
    if len(whole) > LARGEST:
        raise Unreadable(
            "too_large",
            f"unpacked, the message has over {LARGEST} bytes; send its events one by one",
        )
    if not inflating.eof or inflating.unused_data:
        raise _bad(name, "its bytes end too early, or go on behind the end")
    return whole


def _recoded(body: bytes, name: str) -> bytes:
    if not _CHARSET.fullmatch(name):
        raise _bad(name, "only gzip, deflate and usual charsets can be read")
    try:
        text = body.decode(name)
    except (LookupError, ValueError):
        raise _bad(name, "its bytes are not that") from None
    return text.encode("utf-8", "replace")


def _bad(name: str, why: str) -> Unreadable:
    shown = "".join(sign if sign.isprintable() else "?" for sign in name)[:40]
    return Unreadable(
        "bad_encoding", f"content_encoding is {shown!r}, but {why}; mend the producer"
    )


def _name(name: object) -> str:
    return _text(name).strip().lower()


def _text(value: object) -> str:
    """A value of a header as text: AMQP knows numbers, times, tables and bytes besides."""
    match value:
        case None:
            return ""
        case str():
            return value
        case bool():
            return str(value).lower()
        case bytes() | bytearray() | memoryview():
            return bytes(value).decode("utf-8", "replace")
        case datetime():
            return value.replace(tzinfo=value.tzinfo or UTC).isoformat()
        case Mapping() | list() | tuple():
            return json.dumps(value, default=_text, sort_keys=True)
        case _:
            return str(value)
