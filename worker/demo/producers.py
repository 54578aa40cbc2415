"""The producers of account events: what an HR system, Okta and Keycloak send, by XADD."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import Any, Final

import redis

from . import messages

NATIVE: Final = "keyturn:in"
STREAMS: Final = {
    "native": NATIVE,
    "okta": "keyturn:in:okta",
    "keycloak": "keyturn:in:keycloak",
}
"""Where each provider publishes, by the default settings."""

_TEXT_TIMES: Final = ("published", "eventTime", "at", "time")


@dataclass(frozen=True)
class Message:
    """A message on its way: the bytes that are sent, and sent again."""

    stream: str
    body: bytes

    def cut_off(self) -> "Message":
        """What is left of it where its end was lost."""
        return Message(self.stream, self.body[: len(self.body) // 2])


def message(name: str, *, ago: float = 0.0) -> Message:
    """The message in `messages/NAME.json` as if it had happened `ago` seconds ago.

    The first word of its name says which provider sends it.
    """
    content = json.loads(files(messages).joinpath(f"{name}.json").read_bytes())
    _set_times(content, datetime.now(UTC) - timedelta(seconds=ago))
    return Message(STREAMS[name.partition("-")[0]], json.dumps(content).encode())


def _set_times(value: Any, at: datetime) -> None:
    """Put `at` wherever a producer writes its time: Keycloak in milliseconds, others as text."""
    if isinstance(value, list):
        for one in value:
            _set_times(one, at)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name == "time" and isinstance(inner, int):
                value[name] = int(at.timestamp() * 1000)
            elif name in _TEXT_TIMES:
                value[name] = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            else:
                _set_times(inner, at)


class Producers:
    """Publishes, and tells when: in seconds of the monotonic clock, just before the XADD."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def send(self, one: Message) -> float:
        """`XADD STREAM * body '{...}'`."""
        sent = time.monotonic()
        self._redis.xadd(one.stream, {"body": one.body})
        return sent

    def type_by_hand(self, **fields: str) -> float:
        """`XADD keyturn:in * type account.disabled account ada@... id 42`."""
        sent = time.monotonic()
        self._redis.xadd(NATIVE, dict(fields.items()))
        return sent

    def flood(self, entries: Sequence[Mapping[str, str]]) -> None:
        """Many entries at once, in their order."""
        pipeline = self._redis.pipeline(transaction=False)
        for fields in entries:
            pipeline.xadd(NATIVE, dict(fields.items()))
        pipeline.execute()

    def all_taken(self) -> bool:
        """`XLEN` of every stream is 0: intake has stored and removed all that was sent."""
        return not any(self._redis.xlen(stream) for stream in STREAMS.values())


@contextmanager
def producers(broker_url: str) -> Iterator[Producers]:
    """Producers with a connection to this server."""
    with redis.Redis.from_url(broker_url) as client:
        yield Producers(client)
