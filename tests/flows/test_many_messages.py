"""10,000 messages, 1 % of them poison, while the processes that take them in are killed.

Over streams and over RabbitMQ: every effect, none of them twice, and every bad message listed.
"""

import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from kombu import Connection

from models.base import Database
from tests.eventually import eventually
from tests.flows.processes import environment
from tests.flows.stack import ROOT
from tests.worker.intake.exchanges import Exchange
from tests.world import World

MESSAGES = 10_000
POISON_EVERY = 100
ACCOUNTS = 99
INTAKES = 2
KILLS = 5
SLOW = 120.0
AT = tuple(MESSAGES * (number + 1) // (KILLS + 1) for number in range(KILLS))
"""How many messages are stored when one of the processes is killed."""


def message(number: int) -> bytes:
    if number % POISON_EVERY == 0:
        return b'{"poison": %d' % number
    account = f"user{number % ACCOUNTS}@example.com"
    event = {"type": "account.disabled", "account": account, "id": f"{number}"}
    return json.dumps(event).encode()


class Intakes:
    """Several processes of `keyturn intake`; whoever is killed is started again."""

    def __init__(self, env: dict[str, str], log: Path) -> None:
        self._env = env
        self._log = log
        self.kills = 0
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "worker.cli", "intake"]
        with self._log.open("ab") as out:
            self._running.append(
                subprocess.Popen(command, cwd=ROOT, env=self._env, stdout=out, stderr=out)
            )

    def kill_one(self) -> None:
        oldest = self._running.pop(0)
        assert oldest.poll() is None
        oldest.kill()
        oldest.wait()
        self.kills += 1
        self.start()

    def end(self) -> None:
        for one in self._running:
            one.terminate()
        for one in self._running:
            one.wait(20)


def counts(database: Database) -> tuple[int, int]:
    """Readable and rejected messages so far."""
    with database.begin() as tx:
        [row] = tx.rows(
            "SELECT count(*) FILTER (WHERE state <> 'rejected') AS good, "
            "count(*) FILTER (WHERE state = 'rejected') AS bad FROM keyturn.inbox"
        )
    return int(row["good"]), int(row["bad"])


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, pool_size=4)
    yield made
    made.close()


class Stream:
    """A stream of a producer's."""

    settings = 'stream = "hr"'

    def __init__(self, url: str) -> None:
        self._url = url
        self.environment: dict[str, str] = {}

    def publish(self, bodies: list[bytes]) -> None:
        with redis.Redis.from_url(self._url) as client:
            for start in range(0, len(bodies), 100):
                pipeline = client.pipeline(transaction=False)
                for body in bodies[start : start + 100]:
                    pipeline.xadd("hr", {"body": body})
                pipeline.execute()

    def left(self) -> int:
        with redis.Redis.from_url(self._url) as client:
            return int(client.xlen("hr"))

    def forget(self) -> None:
        """It goes with the next test's FLUSHALL."""


class OnRabbitMQ:
    """An exchange of a producer's, to which the queue of the intake is bound already."""

    def __init__(self, url: str) -> None:
        self._exchange = Exchange(url)
        self._exchange.bind()
        self.settings = f'exchange = "{self._exchange.name}"\nrouting_keys = ["accounts.#"]'
        self.source = self._exchange.source
        self.environment = {"KEYTURN_AMQP_URL": url}
        self.left = self._exchange.ready
        self.forget = self._exchange.delete

    def publish(self, bodies: list[bytes]) -> None:
        with Connection(self._exchange.url) as connection:
            channel = connection.default_channel
            for body in bodies:
                persistent = channel.prepare_message(body, properties={"delivery_mode": 2})
                channel.basic_publish(persistent, self._exchange.name, "accounts.changed")
            channel.queue_declare(self._exchange.queue, passive=True)  # it has taken all before


@pytest.mark.parametrize("transport", ["stream", "rabbitmq"])
def test_ten_thousand_messages_while_consumers_are_killed(
    transport: str,
    request: pytest.FixtureRequest,
    database: Database,
    broker_url: str,
    secrets_dir: Path,
    tmp_path: Path,
) -> None:
    world = World(database)
    emails = [f"user{number}@example.com" for number in range(ACCOUNTS)]
    for email in emails:
        world.account(email)
    texts = [world.key(email)[1] for email in emails]
    bodies = [message(number) for number in range(MESSAGES)]
    producer: Stream | OnRabbitMQ = Stream(broker_url)
    name = "hr"
    if transport == "rabbitmq":
        producer = OnRabbitMQ(request.getfixturevalue("rabbitmq_url"))
        name = producer.source
    config = tmp_path / "keyturn.toml"
    config.write_text(f'[sources.{name}]\nprovider = "native"\n{producer.settings}\n')
    url = database.engine.url.render_as_string(hide_password=False)
    env = environment(
        url, broker_url, secrets_dir, KEYTURN_CONFIG=str(config), **producer.environment
    )
    intakes = Intakes(env, tmp_path / "intake.log")
    publishing = threading.Thread(target=producer.publish, args=(bodies,))
    try:
        for _ in range(INTAKES):
            intakes.start()
        publishing.start()
        for wanted in AT:
            eventually(lambda wanted=wanted: sum(counts(database)) >= wanted, within=SLOW)  # type: ignore[misc]
            intakes.kill_one()
        publishing.join(SLOW)
        eventually(lambda: not producer.left() and sum(counts(database)) >= MESSAGES, within=SLOW)
    finally:
        intakes.end()
        left = producer.left()
        producer.forget()
    assert (left, intakes.kills) == (0, KILLS)
    while world.apply():
        pass
    world.settle()
    assert counts(database) == (MESSAGES - MESSAGES // POISON_EVERY, MESSAGES // POISON_EVERY)
    assert_each_once(database, bodies)
    assert {world.verify(text).reason for text in texts} == {"account_held"}


def assert_each_once(database: Database, bodies: list[bytes]) -> None:
    with database.begin() as tx:
        ids = Counter(
            tx.execute("SELECT event_id FROM keyturn.inbox WHERE state = 'done'").scalars()
        )
        poison = Counter(
            tx.execute(
                "SELECT encode(sha256(body), 'hex') FROM keyturn.inbox WHERE state = 'rejected'"
            ).scalars()
        )
        audited = Counter(
            tx.execute("SELECT key_id FROM keyturn.audit WHERE action = 'key.disabled'").scalars()
        )
        held = tx.scalar("SELECT count(*) FROM keyturn.holds")
    numbers = range(MESSAGES)
    assert ids == Counter(f"{number}" for number in numbers if number % POISON_EVERY)
    assert poison == Counter(
        hashlib.sha256(bodies[number]).hexdigest()
        for number in numbers
        if number % POISON_EVERY == 0
    )
    assert len(audited) == held == ACCOUNTS
    assert set(audited.values()) == {1}
