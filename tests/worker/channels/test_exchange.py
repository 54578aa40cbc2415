"""Events on an exchange, against a real RabbitMQ."""

import json
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from kombu import Connection, Exchange, Queue

from models.messages import Delivery
from models.outbox import EVENTS
from tests.worker.channels.outgoing import ACCOUNT, CREATED, disabled
from worker import channels
from worker.channels.exchange import OUT
from worker.settings import load_settings


@pytest.fixture
def queue(rabbitmq_url: str) -> Iterator[Any]:
    """A consumer's queue, bound to all types of events."""
    with Connection(rabbitmq_url) as connection:
        bound = Queue("test.events", Exchange(OUT, "topic", durable=True), routing_key="#")
        bound = bound(connection.default_channel)
        bound.declare()
        yield bound
        bound.delete()


def taken(queue: Any) -> list[Any]:
    return list(iter(lambda: queue.get(no_ack=True), None))


def test_a_slow_batch_ends_in_time(rabbitmq_url: str, queue: Any) -> None:
    deliveries = channels.Exchange(rabbitmq_url, batch_time=-1).send([disabled(1), disabled(2)])
    assert [delivery.state for delivery in deliveries] == ["retry", "retry"]
    assert "RabbitMQ is slow" in (deliveries[0].error or "")
    assert not taken(queue)


def test_a_batch_may_last_for_half_of_the_lease(
    rabbitmq_url: str, queue: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", rabbitmq_url)
    monkeypatch.setenv("KEYTURN_STATEMENT_TIMEOUT", "1s")
    monkeypatch.setenv("KEYTURN_LEASE", "2s")
    started = time.monotonic()
    clock = iter([started, started + 0.5, started + 1.5])  # as a machine that is slow has it
    slow = SimpleNamespace(monotonic=lambda: next(clock))
    monkeypatch.setattr("worker.channels.exchange.time", slow)
    channel = channels.make_channels(load_settings())[EVENTS]
    deliveries = channel.send([disabled(1), disabled(2)])
    assert [delivery.state for delivery in deliveries] == ["sent", "retry"]
    assert len(taken(queue)) == 1


def test_each_message_is_one_event_in_order(rabbitmq_url: str, queue: Any) -> None:
    messages = [disabled(1), disabled(2, kind="key.enabled"), disabled(3, account_id=None)]
    deliveries = channels.Exchange(rabbitmq_url, source="keyturn-eu").send(messages)
    assert deliveries == [Delivery(id=message.id, state="sent") for message in messages]
    found = taken(queue)
    kinds = ["key.disabled", "key.enabled", "key.disabled"]
    assert [message.delivery_info["routing_key"] for message in found] == kinds
    first = found[0]
    assert json.loads(first.body) == {
        "specversion": "1.0",
        "id": "00000000-0000-0000-0000-000000000001",
        "type": "key.disabled",
        "source": "keyturn-eu",
        "subject": str(ACCOUNT),
        "time": "2026-11-23T09:00:00.000000Z",
        "datacontenttype": "application/json",
        "data": {"account_id": str(ACCOUNT), "key_ids": [str(UUID(int=1001))]},
    }
    assert first.content_type == "application/cloudevents+json"
    assert first.content_encoding == "utf-8"
    assert first.properties["delivery_mode"] == 2
    assert first.properties["message_id"] == str(UUID(int=1))


def test_a_consumer_gets_the_types_that_it_binds(rabbitmq_url: str, queue: Any) -> None:
    queue.unbind_from(queue.exchange, "#")
    queue.bind_to(queue.exchange, "key.enabled")
    channels.Exchange(rabbitmq_url).send([disabled(1), disabled(2, kind="key.enabled")])
    assert [json.loads(message.body)["type"] for message in taken(queue)] == ["key.enabled"]


def test_the_exchange_outlives_everybody(rabbitmq_url: str) -> None:
    channels.Exchange(rabbitmq_url).send([disabled()])
    with Connection(rabbitmq_url) as connection:
        # Declared again with other properties it would be refused.
        Exchange(OUT, "topic", durable=True)(connection.default_channel).declare()


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "key.unheard"},
        {"payload": {"it": object()}},
        {"created_at": CREATED.replace(tzinfo=None)},
    ],
    ids=["kind", "payload", "time"],
)
def test_one_bad_message_holds_no_other_up(
    rabbitmq_url: str, queue: Any, bad: dict[str, Any]
) -> None:
    deliveries = channels.Exchange(rabbitmq_url).send(
        [disabled(1), disabled(2, **bad), disabled(3)]
    )
    assert [delivery.state for delivery in deliveries] == ["sent", "failed", "sent"]
    assert "cannot be made an event" in (deliveries[1].error or "")
    assert len(taken(queue)) == 2


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken_port:
        port = taken_port.getsockname()[1]
    begin = time.monotonic()
    deliveries = channels.Exchange(f"amqp://me:hush-hush@127.0.0.1:{port}//").send(
        [disabled(1), disabled(2)]
    )
    assert [(d.id.int, d.state) for d in deliveries] == [(1, "retry"), (2, "retry")]
    assert "did not take it" in (deliveries[0].error or "")
    assert "hush" not in str(deliveries)
    assert time.monotonic() - begin < 10


def test_a_server_that_hangs_costs_one_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"amqp://127.0.0.1:{silent.getsockname()[1]}//"
        begin = time.monotonic()
        deliveries = channels.Exchange(url, timeout=0.5).send([disabled(n) for n in range(50)])
        took = time.monotonic() - begin
    assert {delivery.state for delivery in deliveries} == {"retry"}
    assert took < 15


def test_what_rabbitmq_refuses_is_tried_again(rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection:
        channel = connection.default_channel
        Exchange(OUT)(channel).delete()
        fanout = Exchange(OUT, "fanout", durable=True)(channel)
        fanout.declare()
        try:
            (delivery,) = channels.Exchange(rabbitmq_url).send([disabled()])
        finally:
            fanout.delete()
    assert delivery.state == "retry"
    assert "PRECONDITION_FAILED" in (delivery.error or "")


@pytest.mark.parametrize(
    ("broker", "stream", "kind"),
    [
        ("redis://localhost:1/0", "", channels.Stream),
        ("amqp://localhost:1//", "", channels.Exchange),
        ("amqp://localhost:1//", "redis://localhost:1/0", channels.Stream),
    ],
    ids=["valkey", "rabbitmq", "rabbitmq-and-valkey"],
)
def test_the_urls_choose_the_way_out(
    monkeypatch: pytest.MonkeyPatch, broker: str, stream: str, kind: type
) -> None:
    monkeypatch.setenv("KEYTURN_MAIL_CHANNEL", "none")
    monkeypatch.setenv("KEYTURN_BROKER_URL", broker)
    if stream:
        monkeypatch.setenv("KEYTURN_STREAM_URL", stream)
    assert type(channels.make_channels(load_settings())[EVENTS]) is kind
