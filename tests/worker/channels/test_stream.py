"""Events on a stream, against a real Valkey."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from redis import Redis

from models.messages import Delivery
from tests.worker.channels.outgoing import ACCOUNT, CREATED, disabled
from worker.channels import Stream

OUT = "keyturn:out"


@pytest.fixture
def redis(broker_url: str) -> Iterator["Redis"]:
    with Redis.from_url(broker_url, decode_responses=True) as client:
        yield client


def events(redis: "Redis") -> list[dict[str, Any]]:
    entries: Any = redis.xrange(OUT)
    assert all(list(fields) == ["event"] for _, fields in entries)
    return [json.loads(fields["event"]) for _, fields in entries]


def test_each_message_is_one_event_in_order(broker_url: str, redis: "Redis") -> None:
    messages = [disabled(1), disabled(2, kind="key.enabled"), disabled(3, account_id=None)]
    deliveries = Stream(broker_url, source="keyturn-eu").send(messages)
    assert deliveries == [Delivery(id=message.id, state="sent") for message in messages]
    found = events(redis)
    assert [event["type"] for event in found] == ["key.disabled", "key.enabled", "key.disabled"]
    assert found[0] == {
        "specversion": "1.0",
        "id": "00000000-0000-0000-0000-000000000001",
        "type": "key.disabled",
        "source": "keyturn-eu",
        "subject": str(ACCOUNT),
        "time": "2026-11-23T09:00:00.000000Z",
        "datacontenttype": "application/json",
        "data": {
            "account_id": str(ACCOUNT),
            "key_ids": ["00000000-0000-0000-0000-0000000003e9"],
        },
    }


def test_nothing_to_send(broker_url: str, redis: "Redis") -> None:
    assert Stream(broker_url).send([]) == []
    assert not redis.exists(OUT)


def test_a_repetition_has_the_same_id(broker_url: str, redis: "Redis") -> None:
    stream = Stream(broker_url)
    stream.send([disabled()])
    stream.send([disabled()])
    first, second = events(redis)
    assert first == second


def test_the_stream_is_bounded(broker_url: str, redis: "Redis") -> None:
    Stream(broker_url, maxlen=100).send([disabled(number) for number in range(1000)])
    assert 100 <= redis.xlen(OUT) <= 300  # whole nodes of a hundred entries go at a time
    assert events(redis)[-1]["id"] == str(UUID(int=999))


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
    broker_url: str, redis: "Redis", bad: dict[str, Any]
) -> None:
    deliveries = Stream(broker_url).send([disabled(1), disabled(2, **bad), disabled(3)])
    assert [delivery.state for delivery in deliveries] == ["sent", "failed", "sent"]
    assert [delivery.id for delivery in deliveries] == [UUID(int=n) for n in (1, 2, 3)]
    assert "cannot be made an event" in (deliveries[1].error or "")
    assert len(events(redis)) == 2


def test_what_the_server_refuses_is_tried_again(broker_url: str, redis: "Redis") -> None:
    redis.set(OUT, "not a stream")
    deliveries = Stream(broker_url).send([disabled(1), disabled(2)])
    assert [delivery.state for delivery in deliveries] == ["retry", "retry"]
    assert "WRONGTYPE" in (deliveries[0].error or "")


def test_no_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    stream = Stream(f"redis://:hush-hush@127.0.0.1:{port}/0")
    deliveries = stream.send([disabled(1), disabled(2)])
    assert [delivery.state for delivery in deliveries] == ["retry", "retry"]
    assert "hush" not in str(deliveries)


def test_a_server_that_hangs_costs_one_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        stream = Stream(f"redis://127.0.0.1:{silent.getsockname()[1]}/0", timeout=0.3)
        begin = time.monotonic()
        deliveries = stream.send([disabled(number) for number in range(50)])
        took = time.monotonic() - begin
    assert {delivery.state for delivery in deliveries} == {"retry"}
    assert took < 10


def test_a_lost_answer_appends_nothing_twice(broker_url: str, redis: "Redis") -> None:
    with losing_answers(broker_url) as url:
        (delivery,) = Stream(url).send([disabled()])
    assert delivery.state == "retry"
    assert len(events(redis)) == 1


@contextmanager
def losing_answers(url: str) -> Iterator[str]:
    """A way to the server at `url` on which the answer to XADD, and all after it, gets lost."""
    behind = urlsplit(url)
    with socket.create_server(("127.0.0.1", 0)) as front:
        thread = threading.Thread(target=_pass_on, args=(front, behind.hostname, behind.port))
        thread.start()
        port = front.getsockname()[1]
        try:
            yield behind._replace(
                netloc=behind.netloc.replace(str(behind.port), str(port))
            ).geturl()
        finally:
            front.shutdown(socket.SHUT_RDWR)
            thread.join()


def _pass_on(front: socket.socket, host: str, port: int) -> None:
    with suppress(OSError):
        while True:
            client, _ = front.accept()
            with client, socket.create_connection((host, port)) as server, suppress(OSError):
                while request := client.recv(65536):
                    server.sendall(request)
                    answer = server.recv(65536)
                    if b"XADD" in request:
                        break
                    client.sendall(answer)
