"""Acknowledgements that do not reach the server leave room for the next message."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from kombu import Connection, Consumer, Queue
from redis.exceptions import ConnectionError as NoConnection

from tests.chaos.proxy import Mood, Proxy

QUEUE = Queue("acknowledged")


@pytest.fixture
def proxy(broker_url: str) -> Iterator[Proxy]:
    with Proxy(("127.0.0.1", urlsplit(broker_url).port or 0)).running() as running:
        yield running


@pytest.mark.parametrize("answer", ["ack", "reject", "requeue"])
def test_a_failed_acknowledgement_frees_its_place(
    broker_url: str, proxy: Proxy, answer: str
) -> None:
    """As many as a worker has threads made it deaf for ever, with its connection in order."""
    through = broker_url.replace(f":{urlsplit(broker_url).port}", f":{proxy.port}")
    with Connection(through, transport="worker.redis_transport:Transport") as connection:
        taken: list[Any] = []
        channel = connection.channel()
        QUEUE(channel).declare()
        connection.Producer().publish("a ring", routing_key=QUEUE.name)
        with Consumer(channel, [QUEUE], callbacks=[lambda _, message: taken.append(message)]) as to:
            to.qos(prefetch_count=1)
            connection.drain_events(timeout=5)
            assert not channel.qos.can_consume()
            proxy.set(Mood.RESET)
            with pytest.raises(NoConnection):
                getattr(taken[0], answer)()
            proxy.set(Mood.PASS)
            assert channel.qos.can_consume()
