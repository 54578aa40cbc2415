"""A worker on a broker, and what producers of every sort can do to its queue."""

import base64
import json
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis
from celery import Celery
from kombu import Connection
from psycopg import sql

from models import TimeUnit
from models.base import Database
from models.inbox import InboxEvent
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.processes import environment
from tests.flows.stack import ROOT
from tests.world import ADA, World
from worker.app import DEAD, QUEUE, TASK_EVENT
from worker.embedded.postgres import Postgres

SOON = 20.0


@dataclass
class Site:
    """One worker process on a database of its own; no beat, so that only messages make it work."""

    url: str
    operator: Operator
    environment: Mapping[str, str]
    log: Path
    producer: Celery
    worker: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Start the worker, with a new log, and wait until it is ready."""
        command = [sys.executable, "-m", "celery", "-A", "worker.main", "worker", "-P", "threads"]
        with self.log.open("wb") as out:
            self.worker = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=out, stderr=out
            )
        eventually(lambda: b" ready." in self.log.read_bytes(), within=60)

    def stop(self) -> None:
        """End the worker, in ten seconds at most."""
        self.worker.terminate()
        try:
            self.worker.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL."""
        self.worker.kill()
        self.worker.wait()

    @property
    def on_rabbitmq(self) -> bool:
        return self.url.startswith("amqp")

    def key(self, email: str = ADA) -> tuple[str, str]:
        """A new account and a key of it: its id and its text."""
        World(self.operator.database).account(email)
        key = self.operator.create_api_key("a key", email, "viewer", 30, TimeUnit.DAY)
        return str(key.id), key.text.reveal()

    def send(self, *args: Any, **kwargs: Any) -> str:
        """What an in-house Celery producer does; returns the id of the message."""
        sent = self.producer.send_task(
            TASK_EVENT, args=args, kwargs=kwargs, exchange=QUEUE, routing_key=QUEUE
        )
        return str(sent.id)

    def put(
        self,
        body: bytes,
        headers: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> None:
        """A message made by hand, in the transport's own form."""
        if self.on_rabbitmq:
            self._publish(
                body,
                content_type=content_type,
                content_encoding="utf-8",
                headers=dict(headers or {}),
                properties={"delivery_mode": 2},
            )
            return
        envelope = {
            "body": base64.b64encode(body).decode(),
            "content-type": content_type,
            "content-encoding": "utf-8",
            "headers": dict(headers or {}),
            "properties": {
                "body_encoding": "base64",
                "delivery_mode": 2,
                "delivery_tag": str(uuid.uuid4()),
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
            },
        }
        self.put_raw(json.dumps(envelope).encode())

    def put_raw(self, entry: bytes) -> None:
        """Bytes as they are, without any envelope."""
        if self.on_rabbitmq:
            self._publish(entry)
            return
        with redis.Redis.from_url(self.url) as client:
            client.lpush(QUEUE, entry)

    def _publish(self, body: bytes, **properties: Any) -> None:
        with Connection(self.url) as connection:
            channel = connection.default_channel
            message = channel.prepare_message(body, **properties)
            channel.basic_publish(message, exchange="", routing_key=QUEUE)

    def call(self, task: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """A task message of protocol 2 with these arguments."""
        headers = {"task": task, "id": str(uuid.uuid4())}
        self.put(json.dumps([args, kwargs, {}]).encode(), headers)

    def dead(self) -> int:
        """How many messages RabbitMQ has set aside."""
        with Connection(self.url) as connection:
            declared = connection.default_channel.queue_declare(DEAD, passive=True)
        return int(declared.message_count)

    def events(self) -> list[InboxEvent]:
        """All that came in, the oldest first."""
        return list(reversed(self.operator.events(limit=10_000)))

    def state(self, event_id: str) -> str | None:
        """How the event with this id stands, or None while it is not there."""
        return next((one.state for one in self.events() if one.event_id == event_id), None)

    def rejected_since(self, number: int) -> list[str]:
        """The reasons of rejected events with a higher number."""
        return [
            f"{one.reason}" for one in self.events() if one.state == "rejected" and one.id > number
        ]

    def last(self) -> int:
        """The number of the last event that came in."""
        return max((one.id for one in self.events()), default=0)

    def _stored(self, ids: list[str]) -> int:
        """How many of these events have come in."""
        count = "SELECT count(*) FROM keyturn.inbox WHERE event_id = ANY(:ids)"
        with self.operator.database.begin() as tx:
            return int(tx.scalar(count, ids=ids))

    def caught_up(self) -> None:
        """Wait until the worker has done all that lay in its queue, and see that it lives.

        Its threads may overtake each other, so there are twice as many markers as threads.
        """
        markers = [f"marker-{uuid.uuid4()}" for _ in range(16)]
        for marker in markers:
            self.send({"type": "account.disabled", "account": f"{marker}@nowhere", "id": marker})
        eventually(lambda: self._stored(markers) == len(markers), within=SOON)
        assert self.worker.poll() is None, self.log.read_text()[-3000:]


@contextmanager
def running_site(url: str, database_url: str, secrets_dir: Path, directory: Path) -> Iterator[Site]:
    """A site with an empty queue; its worker is ended with the block."""
    _empty(url)
    producer = Celery("producer", broker=url, set_as_current=False)
    env = environment(database_url, url, secrets_dir)
    with Operator(database_url) as operator, producer:
        site = Site(url, operator, env, directory / "worker.log", producer)
        site.start()
        try:
            yield site
        finally:
            site.stop()


@contextmanager
def closed(postgres: Postgres, database: Database) -> Iterator[None]:
    """For the length of the block nobody is connected to the database, or can connect."""
    name = str(database.engine.url.database)
    allow = "ALTER DATABASE {} ALLOW_CONNECTIONS {}"
    with postgres.connect() as connection:
        connection.execute(sql.SQL(allow).format(sql.Identifier(name), sql.SQL("false")))
    with postgres.connect() as connection:
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        connection.execute(ended, (name,))
    try:
        yield
    finally:
        with postgres.connect() as connection:
            connection.execute(sql.SQL(allow).format(sql.Identifier(name), sql.SQL("true")))


def _empty(url: str) -> None:
    if not url.startswith("amqp"):
        with redis.Redis.from_url(url) as client:
            client.flushall()
        return
    with Connection(url) as connection:
        for name in (QUEUE, DEAD):
            connection.default_channel.queue_delete(name)
