"""A producer's exchange on RabbitMQ, and the intake that reads from it."""

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kombu import Connection

from models.base import Database
from worker.intake.accept import Producer
from worker.intake.amqp import AmqpIntake
from worker.intake.amqp_queues import Queue


class Exchange:
    """A topic exchange of a producer's, whose source has a name of its own."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.source = f"hr{uuid.uuid4().hex[:12]}"
        self.name = f"exchange-of-{self.source}"
        self.queue = f"keyturn.in.{self.source}"
        self.declare()

    def declare(self) -> None:
        with Connection(self.url) as connection:
            connection.default_channel.exchange_declare(
                self.name, "topic", durable=True, auto_delete=False
            )

    def bind(self) -> None:
        """Make the queue and bind it, as an intake does that ran once."""
        with Connection(self.url) as connection:
            assert self.read().join(connection.connection, lambda queue, message: None)

    def read(self, producer: Producer | None = None, *keys: str) -> Queue:
        """What the intake is told of it."""
        made = producer or Producer(self.source, "native")
        return Queue(made, self.name, keys or ("accounts.#",))

    def publish(self, *bodies: bytes, key: str = "accounts.changed", **properties: Any) -> None:
        with Connection(self.url, transport_options={"confirm_publish": True}) as connection:
            channel = connection.default_channel
            for body in bodies:
                message = channel.prepare_message(
                    body,
                    content_type=properties.get("content_type"),
                    content_encoding=properties.get("content_encoding"),
                    headers=properties.get("headers"),
                    properties={
                        "delivery_mode": 2,
                        **{
                            name: value
                            for name, value in properties.items()
                            if name in ("message_id", "timestamp", "type")
                        },
                    },
                )
                channel.basic_publish(message, exchange=self.name, routing_key=key)

    def disable(self, *numbers: int, **properties: Any) -> None:
        """Events with an id of their own."""
        self.publish(*(event(number) for number in numbers), **properties)

    def ready(self, queue: str = "") -> int:
        """Messages that wait to be delivered."""
        with Connection(self.url) as connection:
            channel = connection.default_channel
            return int(channel.queue_declare(queue or self.queue, passive=True).message_count)

    def consumers(self) -> int:
        with Connection(self.url) as connection:
            channel = connection.default_channel
            return int(channel.queue_declare(self.queue, passive=True).consumer_count)

    def delete_queue(self) -> None:
        with Connection(self.url) as connection:
            connection.default_channel.queue_delete(self.queue)

    def delete(self) -> None:
        with Connection(self.url) as connection:
            channel = connection.default_channel
            channel.queue_delete(self.queue)
            channel.exchange_delete(self.name)


def event(number: int, **more: Any) -> bytes:
    """A native event with an id."""
    return json.dumps(
        {"type": "account.disabled", "account": f"a{number}@example.com", "id": f"{number}"} | more
    ).encode()


def plain(account: str, kind: str = "disabled") -> bytes:
    """A native event without an id, and without a time."""
    return json.dumps({"type": f"account.{kind}", "account": account}).encode()


@contextmanager
def running(url: str, database: Database, *queues: Queue, **more: Any) -> Iterator[None]:
    """An intake in a thread of its own."""
    stop = threading.Event()
    intake = AmqpIntake(url, database, queues, mend_every=0.3, **more)
    thread = threading.Thread(target=intake.run, args=(stop.is_set,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)
        assert not thread.is_alive()
