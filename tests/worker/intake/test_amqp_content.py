"""What messages of RabbitMQ may look like: bad ones are listed, and stop no other."""

import gzip
import hashlib
import json
import struct
import zlib
from typing import Any

import pytest
from amqp import basic_message  # type: ignore[import-untyped]

from models.base import Database
from tests.eventually import eventually
from tests.worker.intake.exchanges import Exchange, event, running
from tests.worker.intake.streams import reasons, states, stored
from worker.intake.amqp_delivery import unpacked
from worker.intake.providers import Unreadable
from worker.intake.verification.envelope import LARGEST

SOON = 20.0


POISON: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "empty": (b"", {}, "empty_body"),
    "no JSON": (b"{bad", {"content_type": "application/x-python-serialize"}, "not_json"),
    "no gzip": (b"{}", {"content_encoding": "gzip"}, "bad_encoding"),
    "half a gzip": (gzip.compress(event(1))[:-9], {"content_encoding": "gzip"}, "bad_encoding"),
    "brotli": (b"{}", {"content_encoding": "br"}, "bad_encoding"),
    "a bomb": (gzip.compress(bytes(50_000_000)), {"content_encoding": "gzip"}, "too_large"),
    "too large": (b" " * (LARGEST + 1), {}, "too_large"),
    "a task": (
        json.dumps([[], {}, {}]).encode(),
        {"headers": {"task": "keys.settle", "id": "1"}},
        "not_an_object",
    ),
}


@pytest.mark.parametrize("name", POISON)
def test_one_bad_message_is_listed_and_stops_no_other(
    hr: Exchange, database: Database, name: str
) -> None:
    body, properties, code = POISON[name]
    hr.bind()
    hr.disable(1)
    hr.publish(body, **properties)
    hr.disable(2)
    with running(hr.url, database, hr.read()):
        eventually(lambda: sum(states(database).values()) == 3, within=SOON)
    assert [reason.partition(":")[0] for reason in reasons(database)] == [code]
    assert states(database) == {"received": 2, "rejected": 1}
    assert hr.ready() == 0


def test_what_is_too_large_is_named_by_size_and_digest(hr: Exchange, database: Database) -> None:
    hr.bind()
    hr.publish(b"a" * 5_000_000)
    with running(hr.url, database, hr.read()):
        [reason] = eventually(lambda: reasons(database), within=SOON)
    digest = hashlib.sha256(b"a" * 5_000_000).hexdigest()
    assert f"5000000 bytes (SHA-256 {digest})" in reason
    with database.begin() as tx:
        assert tx.scalar("SELECT length(body) FROM keyturn.inbox") == 0


def raw_properties(**given: bytes) -> bytes:
    """Properties of AMQP as bytes, which a client in another language can send."""
    flags, values = 0, b""
    for name, bit in (("content_type", 0x8000), ("headers", 0x2000), ("message_id", 0x0080)):
        if name in given:
            flags |= bit
            size = ">I" if name == "headers" else "B"
            values += struct.pack(size, len(given[name])) + given[name]
    return struct.pack(">H", flags) + values


STRANGE = {
    "an id that is no UTF-8": raw_properties(message_id=b"\xff\xfe"),
    "a content type that is no UTF-8": raw_properties(content_type=b"\xff"),
    "a header that is no UTF-8": raw_properties(headers=b"\x01aS\x00\x00\x00\x01\xff"),
    "a time in the year 300 million": raw_properties(
        headers=b"\x01aT" + struct.pack(">Q", 2**53 + 1)
    ),
}


@pytest.mark.parametrize("name", STRANGE)
def test_properties_that_the_library_cannot_read_end_no_connection(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    hr.bind()
    with monkeypatch.context() as sending:
        sending.setattr(basic_message.Message, "_serialize_properties", lambda self: STRANGE[name])
        hr.disable(1)
    hr.disable(2)
    with running(hr.url, database, hr.read()):
        eventually(lambda: stored(database) == ["1", "2"], within=SOON)
    assert hr.ready() == 0


def test_a_routing_key_that_is_no_utf_8(hr: Exchange, database: Database) -> None:
    hr.bind()
    hr.publish(event(1), key=b"accounts.\xff\xfe")  # type: ignore[arg-type]
    hr.disable(2)
    with running(hr.url, database, hr.read()):
        eventually(lambda: stored(database) == ["1", "2"], within=SOON)


ENCODED: dict[str, tuple[str, bytes]] = {
    "gzip": ("gzip", gzip.compress(event(1))),
    "GZIP": ("X-GZIP", gzip.compress(event(1))),
    "deflate": ("deflate", zlib.compress(event(1))),
    "deflate without a header": ("deflate", zlib.compress(event(1))[2:-4]),
    "both": ("gzip, deflate", zlib.compress(gzip.compress(event(1)))),
    "kombu's": ("utf-8", event(1)),
    "binary": ("binary", event(1)),
    "another charset": ("utf-16", event(1).decode().encode("utf-16")),
}


@pytest.mark.parametrize("name", ENCODED)
def test_any_encoding(name: str) -> None:
    encoding, body = ENCODED[name]
    assert unpacked(body, encoding) == event(1)


@pytest.mark.parametrize(
    "encoding", ["zstd", "base64", "punycode", "gzip,gzip,gzip,gzip", "utf-32", "rot13", "a" * 300]
)
def test_encodings_that_are_none(encoding: str) -> None:
    with pytest.raises(Unreadable) as refusal:
        unpacked(b"\xff{}", encoding)
    assert refusal.value.code == "bad_encoding"
    assert len(refusal.value.message) < 200
