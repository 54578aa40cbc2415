"""The queue of a source on RabbitMQ, and the exchange of the producer that it is bound to."""

from collections.abc import Callable
from typing import Any, Final

import structlog
from amqp.exceptions import (  # type: ignore[import-untyped]
    AccessRefused,
    ChannelError,
    NotFound,
)

from worker.intake.accept import Producer

log = structlog.get_logger()

QUEUES: Final = "keyturn.in."
"""How the queues begin; the name of the source follows."""

DEAD: Final = "keyturn.dead.in"
"""The exchange, and the queue, of messages that could not be stored in any form."""

PREFETCH: Final = 1000
"""Messages of one source that are delivered and not acknowledged; two batches."""

DELIVERIES: Final = 200
"""After so many deliveries of one message it is set aside. RabbitMQ 4 would say 20, and forget it
without an exchange to put it to. Each end of intake counts, and each half hour of waiting."""

_QUORUM: Final = {"x-queue-type": "quorum"}
"""Servers before 3.8 have none: they pass over it, and make a classic queue."""


class Queue:
    """A durable queue of ours for one source, bound to its producer's exchange."""

    def __init__(self, producer: Producer, exchange: str, routing_keys: tuple[str, ...]) -> None:
        self.producer = producer
        self.exchange = exchange
        self.routing_keys = routing_keys
        self.name = f"{QUEUES}{producer.name}"
        self.cancelled = False
        self._consumes = False

    def left(self) -> None:
        """The connection is gone."""
        self._consumes = self.cancelled = False

    def join(self, connection: Any, take: Callable[["Queue", Any], None]) -> bool:
        """Consume it, and bind it: what is not as it should be raises an alarm, and returns False.

        What hinders one source must not hinder the others, so only a broken connection is raised.
        """
        try:
            if not self._consumes or self.cancelled:
                self._consume(connection, take)
            return self._bound(connection)
        except AccessRefused:
            self._alarm("this user may not declare, bind or read it: see the users of RabbitMQ")
        except ChannelError as error:
            self._alarm(f"the server refused: {type(error).__name__}")
        return False

    def _consume(self, connection: Any, take: Callable[["Queue", Any], None]) -> None:
        _declare(
            connection,
            self.name,
            {**_QUORUM, "x-dead-letter-exchange": DEAD, "x-delivery-limit": DELIVERIES},
        )
        channel = connection.channel()
        channel.basic_qos(0, PREFETCH, False)
        channel.basic_consume(
            self.name, callback=lambda message: take(self, message), on_cancel=self._on_cancel
        )
        self._consumes, self.cancelled = True, False

    def _on_cancel(self, tag: str) -> None:
        """The server ended it: somebody deleted the queue."""
        self.cancelled = True

    def _bound(self, connection: Any) -> bool:
        channel = connection.channel()
        try:
            channel.exchange_declare(self.exchange, "topic", passive=True)
        except NotFound:
            log.error(
                "alarm",
                alarm="exchange_missing",
                source=self.producer.name,
                exchange=self.exchange,
                mend="it is the producer's: start that, or correct `exchange`; it is tried again",
            )
            return False
        for key in self.routing_keys:
            channel.queue_bind(self.name, self.exchange, key)
        channel.close()
        return True

    def _alarm(self, why: str) -> None:
        log.error(
            "alarm",
            alarm="queue_unusable",
            source=self.producer.name,
            queue=self.name,
            exchange=self.exchange,
            why=why,
        )


def tell_of_set_aside(connection: Any) -> None:
    """Raise the alarm while messages lie in DEAD; nothing takes them out but a person."""
    try:
        channel = connection.channel()
        found = channel.queue_declare(DEAD, passive=True).message_count
        channel.close()
    except ChannelError:
        return  # there is none yet, so nothing is in it
    if found:
        log.error("alarm", alarm="messages_set_aside", queue=DEAD, messages=found)


def _declare(connection: Any, name: str, arguments: dict[str, Any]) -> None:
    """The queue as it is, whoever made it; else a new one, and what it puts its dead letters to."""
    if _is_there(connection, name):
        return
    channel = connection.channel()
    channel.exchange_declare(DEAD, "fanout", durable=True, auto_delete=False)
    if not _is_there(connection, DEAD):
        channel.queue_declare(DEAD, durable=True, auto_delete=False, arguments=_QUORUM)
    channel.queue_bind(DEAD, DEAD)
    channel.queue_declare(name, durable=True, auto_delete=False, arguments=arguments)
    channel.close()


def _is_there(connection: Any, name: str) -> bool:
    channel = connection.channel()
    try:
        channel.queue_declare(name, passive=True)
    except NotFound:
        return False
    channel.close()
    return True
