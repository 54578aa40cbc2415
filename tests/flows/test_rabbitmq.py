"""Keyturn on RabbitMQ by its URL alone: everything of `keyturn up`, without a Redis anywhere."""

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Exchange, Queue

from models.operator import Operator
from tests.eventually import eventually
from tests.flows.stack import ROOT, SECONDS, Stack, running_stack
from worker.app import DEAD, QUEUE

ADA = "ada@example.com"
SOON = 30.0


@pytest.fixture(scope="module")
def stack(rabbitmq_url: str) -> Iterator[Stack]:
    with Connection(rabbitmq_url) as connection:
        for name in (QUEUE, DEAD):  # what other tests of this run have left there
            connection.default_channel.queue_delete(name)
    with running_stack(SECONDS | {"KEYTURN_BROKER_URL": rabbitmq_url}) as started:
        yield started


@pytest.fixture
def operator(stack: Stack) -> Iterator[Operator]:
    with stack.operator() as opened:
        yield opened


class Gateway:
    """A consumer of the events on the exchange, with a durable queue of its own."""

    def __init__(self, channel: Any) -> None:
        exchange = Exchange("keyturn.out", "topic", durable=True)
        self._queue = Queue("gateway", exchange, routing_key="key.*")(channel)
        self._queue.declare()
        self._seen: list[dict[str, Any]] = []

    def told(self, kind: str, key: str) -> bool:
        """Whether an event of this type has come that names this key."""
        new = iter(lambda: self._queue.get(no_ack=True), None)
        self._seen.extend(json.loads(message.body) for message in new)
        return any(e["type"] == kind and key in e["data"]["key_ids"] for e in self._seen)


@pytest.fixture
def gateway(rabbitmq_url: str) -> Iterator[Gateway]:
    with Connection(rabbitmq_url) as connection:
        yield Gateway(connection.default_channel)


def test_an_event_from_a_producer_to_a_consumer(
    stack: Stack, operator: Operator, rabbitmq_url: str, gateway: Gateway
) -> None:
    stack.keyturn("accounts", "create", ADA, "--role", "member")
    month = ("--user", ADA, "--role", "member", "--validity", "30", "--time-unit", "day")
    key = stack.keyturn("keys", "create", "first", *month)
    assert operator.verify(key["text"]).valid
    eventually(lambda: gateway.told("key.issued", key["id"]), within=SOON)

    with Celery("hr", broker=rabbitmq_url, set_as_current=False) as hr:
        event = {"type": "account.disabled", "account": ADA, "id": "42"}
        hr.send_task("account.event", args=[event], exchange="keyturn", routing_key="keyturn")
    eventually(lambda: operator.verify(key["text"]).reason == "account_held", within=SOON)
    eventually(lambda: operator.key(key["id"]).status == "disabled", within=SOON)
    eventually(lambda: gateway.told("key.disabled", key["id"]), within=SOON)

    stack.keyturn("events", "send", "account.enabled", ADA)
    eventually(lambda: operator.verify(key["text"]).valid, within=SOON)
    eventually(lambda: gateway.told("key.enabled", key["id"]), within=SOON)


def test_the_schedule_runs(stack: Stack, operator: Operator) -> None:
    """Beat's ticks come through: a key ends, and nobody rang for that."""
    email = "short@example.com"
    stack.keyturn("accounts", "create", email, "--role", "member")
    minute = ("--user", email, "--role", "viewer", "--validity", "60", "--time-unit", "second")
    key = stack.keyturn("keys", "create", "short", *minute)
    with operator.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET expires_at = transaction_timestamp() "
            "WHERE id = CAST(:id AS uuid)",
            id=key["id"],
        )
    eventually(lambda: operator.key(key["id"]).status == "expired", within=SOON)


def test_the_lines_to_try_name_no_redis(stack: Stack) -> None:
    assert "events send account.disabled" in stack.output
    assert "XADD" not in stack.output


def test_intake_says_what_is_off_and_why(stack: Stack) -> None:
    log = (stack.data_dir / "log" / "intake.log").read_text()
    [line] = [json.loads(line) for line in log.splitlines() if "stream_intake_off" in line]
    assert "RabbitMQ" in line["why"]
    assert "account.event" in line["works"]
    assert "KEYTURN_STREAM_URL" in line["mend"]


def test_no_queue_is_declared_that_nobody_needs(rabbitmq_url: str, stack: Stack) -> None:
    with Connection(rabbitmq_url) as connection:
        channel = connection.channel()
        with pytest.raises(connection.channel_errors, match="NOT_FOUND"):
            channel.queue_declare("celery_delayed_0", passive=True)


@pytest.mark.parametrize("role", ["worker", "beat", "intake"])
def test_the_roles_are_well(stack: Stack, role: str) -> None:
    command = [sys.executable, "-m", "worker.health", role]
    done = subprocess.run(command, cwd=ROOT, env=stack.environment, capture_output=True)
    assert done.returncode == 0, done.stderr
