"""The far sides of the broker: producers who publish until it is acknowledged, and a receiver."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, Protocol

import redis
from celery import Celery
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos.ledger import LEAKED, Event, Ledger, Told
from tests.chaos.site import Site
from worker.app import DEAD, QUEUE, TASK_EVENT

STREAM: Final = "keyturn:in"
OUT: Final = "keyturn:out"
PATIENCE: Final = 90.0
"""Seconds for which a producer tries to publish one event."""


class Far(Protocol):
    """What is on the other side of the broker."""

    def publish(self, event: Event) -> None:
        """Publish it until that is acknowledged; the ledger is told."""
        ...

    def flush(self) -> None:
        """FLUSHALL; the ledger is told what was in the stream."""
        ...

    def told(self) -> Sequence[Told]:
        """What came out, so far."""
        ...

    def dump(self) -> Iterator[tuple[str, bytes]]:
        """All that the broker has now, by where it is."""
        ...


def message(event: Event) -> dict[str, Any]:
    """The native event."""
    said: dict[str, Any] = {"type": f"account.{event.action}", "account": event.account}
    if event.action == LEAKED:
        said = {"type": "key.leaked", "digest": event.digest}
    if event.named:
        said["id"] = event.name
    if event.sequence is not None:
        said["sequence"] = event.sequence
    return said


def until_taken(publish: Callable[[], str], event: Event, ledger: Ledger) -> None:
    """Try until it is acknowledged. Raises the last error when patience is over."""
    deadline = time.monotonic() + PATIENCE
    while True:
        began = time.time()
        try:
            delivery = publish()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
            continue
        ledger.published(event, began, delivery)
        return


class OnValkey:
    """Producers and a receiver on streams."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self._ledger = ledger
        self._redis = redis.Redis.from_url(
            site.broker_url, retry=Retry(NoBackoff(), 0), socket_timeout=5, socket_connect_timeout=2
        )
        self._site = site
        self._told: dict[str, Told] = {}
        self._newest = "-"
        """After which entry the next look begins."""
        self._flushed_dumps: list[tuple[str, bytes]] = []
        self._lock = threading.Lock()

    def publish(self, event: Event) -> None:
        said = message(event)
        as_body = event.named and hash(event.name) % 2
        fields: dict[Any, Any] = (
            {"body": json.dumps(said)} if as_body else {k: str(v) for k, v in said.items()}
        )
        until_taken(lambda: _text(self._redis.xadd(STREAM, fields)), event, self._ledger)

    def flush(self) -> None:
        """What is in the streams and the flush itself are one transaction of the server's."""
        self._flushed_dumps += self._keys()  # what was in the file of the log stays there
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.xrange(STREAM)
        pipeline.xrange(OUT)
        pipeline.flushall()
        with self._lock:
            unread, outgoing, _ = pipeline.execute()
            self._note(outgoing)
            self._newest = "-"
        self._ledger.flush(
            (_text(entry) for entry, _ in unread), (_named(fields) for _, fields in unread)
        )

    def told(self) -> Sequence[Told]:
        with self._lock:
            self._note(self._redis.xrange(OUT, min=self._newest))
            return list(self._told.values())

    def dump(self) -> Iterator[tuple[str, bytes]]:
        yield from self._flushed_dumps
        yield from self._keys()
        for file in sorted((self._site.home.path / "valkey").rglob("appendonly*")):
            if file.is_file():
                yield f"Valkey's {file.name}", file.read_bytes()

    def _keys(self) -> Iterator[tuple[str, bytes]]:
        for key in self._redis.scan_iter():
            with suppress(redis.RedisError):
                yield f"Valkey's {_text(key)}", self._redis.dump(key) or b""

    def _note(self, entries: Any) -> None:
        for entry, fields in entries:
            name = _text(entry)
            at = int(name.partition("-")[0]) / 1000
            self._told.setdefault(name, _told(json.loads(fields[b"event"]), at, False))
            self._newest = f"({name}"


class OnRabbitMQ:
    """Producers with Celery, and a receiver on the exchange with a durable queue of its own."""

    def __init__(self, site: Site, ledger: Ledger) -> None:
        self._ledger = ledger
        self._site = site
        self._url = site.broker_url
        self._celery = Celery("hr", broker=self._url, set_as_current=False)
        self._celery.conf.broker_transport_options = {
            "confirm_publish": True,
            "read_timeout": 5,
            "write_timeout": 5,
        }
        self._own = threading.local()
        self._told: list[Told] = []
        self._raw: list[bytes] = []
        self._stop = threading.Event()
        self._receiver = threading.Thread(target=self._receive, name="receiver")

    def publish(self, event: Event) -> None:
        until_taken(lambda: self._send(message(event)), event, self._ledger)

    def _send(self, said: Mapping[str, Any]) -> str:
        try:
            if getattr(self._own, "connection", None) is None:
                self._own.connection = self._celery.connection_for_write()
            self._celery.send_task(
                TASK_EVENT,
                args=[said],
                exchange=QUEUE,
                routing_key=QUEUE,
                connection=self._own.connection,
                retry=False,
                ignore_result=True,
                confirm_timeout=5,
            )
        except Exception:
            broken, self._own.connection = self._own.connection, None
            with suppress(Exception):
                broken.release()
            raise
        return ""

    def flush(self) -> None:
        raise NotImplementedError("RabbitMQ has no FLUSHALL")

    def told(self) -> Sequence[Told]:
        return list(self._told)

    def dump(self) -> Iterator[tuple[str, bytes]]:
        yield "events on the exchange", b"\n".join(self._raw)
        with Connection(self._url) as connection:
            for name in (QUEUE, DEAD):
                queue = Queue(name)(connection.default_channel)
                with suppress(*connection.channel_errors):
                    while (left := queue.get(no_ack=True)) is not None:
                        yield f"RabbitMQ's {name}", repr((left.body, left.headers)).encode()
        for file in sorted((self._site.home.path / "rabbitmq" / "mnesia").rglob("*")):
            if file.is_file():
                yield f"RabbitMQ's {file.name}", file.read_bytes()

    @contextmanager
    def receiving(self) -> Iterator["OnRabbitMQ"]:
        """Receive in a thread until the block ends."""
        with Connection(self._url) as connection:
            self._queue(connection.default_channel)
        self._receiver.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._receiver.join()

    def _queue(self, channel: Any) -> Any:
        exchange = Exchange("keyturn.out", "topic", durable=True)
        queue = Queue("gateway", exchange, routing_key="key.*", durable=True)(channel)
        queue.declare()
        return queue

    def _receive(self) -> None:
        made = Connection(self._url)
        lost = (*made.connection_errors, *made.channel_errors, OperationalError, OSError)
        empty = time.time()
        while not self._stop.is_set():
            with (
                suppress(*lost),
                Connection(self._url, connect_timeout=2) as connection,
            ):
                queue = self._queue(connection.default_channel)
                while not self._stop.is_set():
                    if (got := queue.get()) is None:
                        empty = time.time()
                        self._stop.wait(0.1)
                        continue
                    again = bool(got.delivery_info.get("redelivered"))
                    text = got.body if isinstance(got.body, str) else bytes(got.body).decode()
                    self._raw.append(text.encode())
                    self._told.append(_told(json.loads(text), time.time(), again, empty))
                    got.ack()
            self._stop.wait(0.3)


@contextmanager
def far_side(site: Site, ledger: Ledger) -> Iterator[Far]:
    """Producers and receiver for the broker of this site."""
    if site.broker_kind == "valkey":
        yield OnValkey(site, ledger)
        return
    with OnRabbitMQ(site, ledger).receiving() as far:
        yield far


def _told(
    event: Mapping[str, Any], at: float, redelivered: bool, since: float | None = None
) -> Told:
    data = event["data"]
    sealed = str(data.get("jwe", ""))
    keys = tuple(data["key_ids"])
    return Told(event["id"], event["type"], keys, at, redelivered, sealed, since)


def _named(fields: Mapping[bytes, bytes]) -> str:
    """How the ledger finds an event again, from its entry."""
    if b"body" in fields:
        said = json.loads(fields[b"body"])
    else:
        said = {name.decode(): value.decode() for name, value in fields.items()}
    action = said["type"].removeprefix("account.")
    return str(said.get("id") or f"{action} {said['account']}")


def _text(raw: Any) -> str:
    return raw.decode() if isinstance(raw, bytes) else str(raw)
