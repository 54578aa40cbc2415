"""Events for other systems on an exchange of RabbitMQ, as CloudEvents in JSON."""

import time
from collections.abc import Sequence
from typing import Any, Final
from uuid import UUID

from kombu import Connection
from kombu import Exchange as Declared

from models.messages import Delivery, Outgoing

from .cloud_event import cloud_event
from .messages import one_line

OUT: Final = "keyturn.out"
CONTENT_TYPE: Final = "application/cloudevents+json"
TIMEOUT: Final = 10.0
"""Seconds to wait for an answer; connecting has half of it."""
BATCH_TIME: Final = 60.0
"""Seconds that a batch may last: half of the default lease."""


class Exchange:
    """Publishes each message to the durable topic exchange `keyturn.out`, by its type.

    `sent` means that RabbitMQ has confirmed it; whether a queue is bound there is the consumers'
    business. Where a confirmation got lost the event may come twice, with one CloudEvents id.
    After `batch_time` seconds a batch starts no further message: its lease may end, and another
    worker would send what this one still does.
    """

    def __init__(
        self,
        url: str,
        *,
        source: str = "keyturn",
        timeout: float = TIMEOUT,
        batch_time: float = BATCH_TIME,
    ) -> None:
        self._url = url
        self._source = source
        self._timeout = timeout
        self._batch_time = batch_time
        self._exchange = Declared(OUT, "topic", durable=True)

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        done: dict[UUID, Delivery] = {}
        until = time.monotonic() + self._batch_time
        why = "not tried, since RabbitMQ is slow; it is tried again"
        try:
            # One connection for a batch: several threads send, and none is left half-open.
            with self._connection() as connection:
                producer = connection.Producer(exchange=self._exchange)
                for message in messages:
                    if time.monotonic() > until:
                        break
                    done[message.id] = self._send_one(producer, message)
        except Exception as error:  # whatever it is, what was not confirmed is sent again
            why = f"RabbitMQ did not take it: {one_line(error) or type(error).__name__}"
        return [done.get(m.id) or Delivery(id=m.id, state="retry", error=why) for m in messages]

    def _connection(self) -> Any:
        return Connection(
            self._url,
            connect_timeout=self._timeout / 2,
            # None: the certificate must be that of the URL's host. Without it, any host's would do.
            ssl={"server_hostname": None} if self._url.startswith("amqps:") else False,
            transport_options={
                "confirm_publish": True,
                "read_timeout": self._timeout,
                "write_timeout": self._timeout,
                "max_retries": 0,
            },
        )

    def _send_one(self, producer: Any, message: Outgoing) -> Delivery:
        """Publish and wait for the confirmation. Raises what ends the connection."""
        try:
            text = cloud_event(message, self._source)
        except (TypeError, ValueError) as error:
            why = f"cannot be made an event: {one_line(error)}"
            return Delivery(id=message.id, state="failed", error=why)
        producer.publish(
            text,
            routing_key=message.kind,
            declare=[self._exchange],
            content_type=CONTENT_TYPE,
            content_encoding="utf-8",
            delivery_mode=2,
            message_id=str(message.id),
            type=message.kind,
            confirm_timeout=self._timeout,
            retry=False,
        )
        return Delivery(id=message.id, state="sent")
