"""Kombu's transport for Redis and Valkey, which a stray entry in the queue's list cannot end.

What somebody pushes there by hand is taken out of the list before it is read. With kombu alone one
that is no JSON, or not in Celery's envelope, ends the worker that got it. The same for a record of
an unacknowledged message: with kombu alone it stands for ever in the way of those behind it.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from kombu.transport import redis
from redis.exceptions import DataError, ResponseError

log = structlog.get_logger()

PAUSE: Final = 1.0
"""Seconds between two looks at a queue that is none (another type, a grant that lacks)."""

UNREADABLE = (AttributeError, DataError, LookupError, RecursionError, TypeError, ValueError)


class QoS(redis.QoS):  # type: ignore[misc]
    """Drops records of unacknowledged messages that are none, with an alarm.

    A message leaves the prefetch window even where the server could not be told: with kombu alone
    a worker whose connection breaks at as many acknowledgements as it has threads never takes a
    message again. What the server still remembers comes back with the visibility timeout, and a
    ring that comes twice changes nothing.
    """

    def ack(self, delivery_tag: Any) -> None:
        with self._leaving(delivery_tag):
            super().ack(delivery_tag)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        with self._leaving(delivery_tag):
            super().reject(delivery_tag, requeue)

    @contextmanager
    def _leaving(self, delivery_tag: Any) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._quick_ack(delivery_tag)
            raise

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        with self.channel.conn_or_acquire(client) as server:
            record = server.hget(self.unacked_key, tag)
            if record is None or _is_record(record):
                super().restore_by_tag(tag, server, leftmost)
                return
            log.error("alarm", alarm="message_refused", why="no record", size=len(record))
            self._remove_from_indices(tag, server.pipeline()).execute()


def _is_record(record: bytes) -> bool:
    try:
        message, exchange, routing_key = json.loads(record)
    except UNREADABLE:
        return False
    return (
        isinstance(message, dict)
        and isinstance(message.get("headers"), dict)
        and isinstance(message.get("properties"), dict)
        and isinstance(message["properties"].get("delivery_info"), dict)
        and isinstance(exchange, str)
        and isinstance(routing_key, str)
    )


class Channel(redis.Channel):  # type: ignore[misc]
    """Drops what is no message, with an alarm."""

    QoS = QoS

    def maybe_refresh_binding_expiry(self) -> None:
        """Nothing: what expires of ours is bound to no exchange (worker.hearing)."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            log.error("alarm", alarm="message_refused", why=type(error).__name__)
            return True
        except ResponseError as error:
            if isinstance(error, self.connection_errors):
                raise
            log.error("alarm", alarm="queue_unusable", why=type(error).__name__)
            time.sleep(PAUSE)  # kombu alone would let the worker end, and the next one
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    """The transport of Redis with these channels."""

    Channel = Channel
