"""Connections to RabbitMQ for reading, which survive whatever a message looks like.

The library ends a connection at a property or routing key that is not UTF-8, or of a type that it
does not know; the message would come again, and end the next one. And it holds a message whole,
whatever its size. Both are bounded here, where messages come out of frames.
"""

import hashlib
from collections.abc import Callable
from struct import unpack_from
from typing import Any, Final

from amqp import spec  # type: ignore[import-untyped]
from amqp.basic_message import Message  # type: ignore[import-untyped]
from amqp.method_framing import frame_handler  # type: ignore[import-untyped]
from kombu import Connection

from worker.intake.verification.envelope import LARGEST

HEARTBEAT: Final = 10
"""Seconds; a silent server is noticed after two to three of these."""
TIMEOUT: Final = 10.0
"""Seconds to wait for an answer; connecting has half of it."""

_METHOD, _HEADER, _HEARTBEAT = 1, 2, 8


def connect(url: str) -> Any:
    """An open connection of the library's, whose messages are `Bounded`."""
    return Connection(
        url,
        connect_timeout=TIMEOUT / 2,
        heartbeat=HEARTBEAT,
        # None: the certificate must be that of the URL's host. Without it, any host's would do.
        ssl={"server_hostname": None} if url.startswith("amqps:") else False,
        transport_options={
            "confirm_publish": True,
            "read_timeout": TIMEOUT,
            "write_timeout": TIMEOUT,
            "frame_handler": _frames,
        },
    ).transport.establish_connection()


class Bounded(Message):  # type: ignore[misc]
    """A message whose properties may be unreadable, and of which only the digest may be there."""

    def __init__(self, frame_args: bytes) -> None:
        super().__init__(frame_method=spec.Basic.Deliver, frame_args=_readable(frame_args))
        self.unreadable = False
        self.digest = hashlib.sha256()
        """That of the body; what is over LARGEST is nowhere else."""

    def _load_properties(self, class_id: int, buf: bytes, offset: int) -> int:
        try:
            return int(super()._load_properties(class_id, buf, offset))
        except Exception:  # whatever it trips over: the body may be good all the same
            self.properties: dict[str, Any] = {}
            self.unreadable = True
            return offset

    def inbound_body(self, buf: bytes) -> None:
        self.digest.update(buf)
        if self.body_size <= LARGEST:
            super().inbound_body(buf)
            return
        self.body_received += len(buf)
        self.body = b""
        self.ready = self.body_received >= self.body_size


def _frames(connection: Any, callback: Callable[..., object]) -> Callable[[Any], bool]:
    """The library's own handler of frames, but for those of delivered messages."""
    others = frame_handler(connection, callback)
    open_ones: dict[int, Bounded] = {}

    def on_frame(frame: Any) -> bool:
        kind, channel, payload = frame
        if kind == _METHOD:
            open_ones.pop(channel, None)
            if unpack_from(">HH", payload, 0) == spec.Basic.Deliver:
                connection.bytes_recv += 1
                open_ones[channel] = Bounded(payload)
                return False
        message = open_ones.get(channel)
        if message is None or kind == _HEARTBEAT:
            return bool(others(frame))
        connection.bytes_recv += 1
        message.inbound_header(payload) if kind == _HEADER else message.inbound_body(payload)
        if not message.ready:
            return False
        del open_ones[channel]
        callback(channel, message.frame_method, message.frame_args, message)
        return True

    return on_frame


def _readable(method: bytes) -> bytes:
    """The frame `basic.deliver`, with what is no UTF-8 in its routing key replaced."""
    place = 4
    place += 1 + method[place]  # the consumer's tag
    place += 8 + 1  # the delivery tag, and whether it is redelivered
    place += 1 + method[place]  # the exchange
    key = bytes(method[place + 1 : place + 1 + method[place]])
    try:
        key.decode()
        return method
    except UnicodeDecodeError:
        shown = key.decode("ascii", "replace").replace("\ufffd", "?").encode("ascii")
        return bytes(method[: place + 1]) + shown
