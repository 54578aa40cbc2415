"""The way from an exchange of RabbitMQ into the inbox, on a real RabbitMQ and PostgreSQL."""

import gzip
import signal
import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from kombu import Connection

from models import inbox
from models.base import Database
from models.inbox import Received
from tests.chaos.rabbitmq import PROGRAM, RabbitMQ
from tests.eventually import eventually
from tests.flows.processes import environment
from tests.flows.stack import ROOT
from tests.servers import need, temporary_home
from tests.worker.intake.exchanges import Exchange, event, plain, running
from tests.worker.intake.streams import reasons, states, stored
from tests.worker.site import closed
from tests.world import World
from worker.embedded.postgres import Postgres
from worker.intake import amqp as under_test
from worker.intake.accept import Producer
from worker.intake.amqp_queues import DEAD
from worker.intake.verification import KeysUnavailable, Message, Unverified

SOON = 20.0


def test_a_message_is_stored_then_acknowledged(hr: Exchange, database: Database) -> None:
    with running(hr.url, database, hr.read()):
        eventually(lambda: bound_now(hr), within=SOON)
        eventually(lambda: stored(database) == ["2"], within=SOON)
    assert hr.ready() == 0


def test_what_was_published_meanwhile_comes_in_order(hr: Exchange, database: Database) -> None:
    hr.bind()
    hr.disable(*range(1200))
    with running(hr.url, database, hr.read()):
        eventually(lambda: len(stored(database)) == 1200, within=SOON)
    assert stored(database) == [str(number) for number in range(1200)]
    assert hr.ready() == 0


def test_only_its_own_routing_keys(hr: Exchange, database: Database) -> None:
    hr.bind()
    hr.disable(1, key="others.changed")
    hr.disable(2)
    with running(hr.url, database, hr.read()):
        eventually(lambda: stored(database) == ["2"], within=SOON)


def test_disable_enable_disable_without_ids_are_three(hr: Exchange, database: Database) -> None:
    world = World(database)
    world.account()
    _, text = world.key()
    ada = "ada@example.com"
    hr.bind()
    hr.publish(plain(ada), plain(ada, "enabled"), plain(ada))
    with running(hr.url, database, hr.read()):
        eventually(lambda: len(stored(database)) == 3, within=SOON)
    world.apply()
    assert world.verify(text).reason == "account_held"


def test_a_message_id_counts_once_however_often_it_is_published(
    hr: Exchange, database: Database
) -> None:
    hr.bind()
    for _ in range(3):
        hr.publish(plain("ada@example.com"), message_id="one")
    hr.publish(plain("ada@example.com"), message_id="two")
    hr.publish(plain("bob@example.com"), message_id="one")  # a producer that repeats its ids
    hr.publish(b"{bad", b"{bad", message_id="three")
    with running(hr.url, database, hr.read()):
        eventually(lambda: states(database) == {"received": 3, "rejected": 1}, within=SOON)


CRASHING = """
import os, sys
from worker.intake import amqp_delivery
amqp_delivery.Delivery.acknowledge = lambda self: os._exit(9)
from worker.cli.__main__ import *
from worker.cli.app import main
sys.exit(main())
"""


def settings_file(tmp_path: Path, *exchanges: Exchange) -> Path:
    path = tmp_path / "keyturn.toml"
    path.write_text(
        "".join(
            f'[sources.{one.source}]\nprovider = "native"\nexchange = "{one.name}"\n'
            'routing_keys = ["accounts.#"]\n'
            for one in exchanges
        )
    )
    path.chmod(0o600)
    return path


def process(
    hr: Exchange, database: Database, secrets_dir: Path, tmp_path: Path, *command: str
) -> "subprocess.Popen[bytes]":
    url = database.engine.url.render_as_string(hide_password=False)
    config = settings_file(tmp_path, hr)
    env = environment(url, hr.url, secrets_dir, KEYTURN_CONFIG=str(config))
    return subprocess.Popen([sys.executable, *command, "intake"], cwd=ROOT, env=env)


def test_a_crash_between_commit_and_acknowledgement_stores_nothing_twice(
    hr: Exchange, database: Database, secrets_dir: Path, tmp_path: Path
) -> None:
    """By id, by content without an id, and what cannot be read: all come again, all count once."""
    hr.bind()
    ada = "ada@example.com"
    hr.publish(event(1), plain(ada), plain(ada, "enabled"), plain(ada), b"{bad", b"{bad")
    with process(hr, database, secrets_dir, tmp_path, "-c", CRASHING) as crashed:
        assert crashed.wait(30) == 9
    before = states(database)
    assert before == {"received": 4, "rejected": 2}
    eventually(lambda: hr.ready() == 6, within=SOON)
    hr.disable(2)
    with running(hr.url, database, hr.read()):
        eventually(lambda: sum(states(database).values()) == 7, within=SOON)
    assert states(database) == {"received": 5, "rejected": 2}
    assert hr.ready() == 0


def test_a_crash_before_the_commit_loses_nothing(
    hr: Exchange, database: Database, secrets_dir: Path, tmp_path: Path
) -> None:
    hr.bind()
    hr.publish(event(1), plain("ada@example.com"), b"{bad")
    url = str(database.engine.url.render_as_string(hide_password=False))
    with (
        psycopg.connect(url, autocommit=True) as watcher,
        psycopg.connect(url) as connection,
        process(hr, database, secrets_dir, tmp_path, "-m", "worker.cli") as crashed,
    ):
        connection.execute("LOCK TABLE keyturn.inbox_keys IN EXCLUSIVE MODE")
        waits = "SELECT FROM pg_locks WHERE NOT granted"
        eventually(lambda: watcher.execute(waits).fetchone() is not None)
        crashed.send_signal(signal.SIGKILL)
        crashed.wait()
    eventually(lambda: hr.ready() == 3, within=SOON)
    assert not states(database)
    with running(hr.url, database, hr.read()):
        eventually(lambda: states(database) == {"received": 2, "rejected": 1}, within=SOON)


def test_nothing_is_acknowledged_while_the_database_is_away(
    hr: Exchange, database: Database, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is given back to come again at once: every message is delivered once."""
    taken: list[Any] = []
    take = under_test._Session._take

    def counted(session: Any, queue: Any, message: Any) -> None:
        taken.append(message)
        take(session, queue, message)

    monkeypatch.setattr(under_test._Session, "_take", counted)
    beats: list[float] = []

    def beat() -> None:
        with database.begin() as tx:
            beats.append(tx.scalar("SELECT 1"))

    hr.bind()
    with running(hr.url, database, hr.read(), beat=beat):
        eventually(lambda: beats, within=SOON)
        with closed(postgres, database):
            hr.disable(*range(50))
            eventually(lambda: len(taken) == 50, within=SOON)
            tried = len(beats)
            assert not hr.ready()
        eventually(lambda: len(stored(database)) == 50, within=SOON)
        eventually(lambda: len(beats) > tried, within=SOON)
    assert len(taken) == 50
    assert hr.ready() == 0


class Asked:
    """A proof that notes what it is asked, and says what it is told to."""

    hidden: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.answer: Exception | None = None

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        if self.answer is not None:
            raise self.answer


def test_headers_and_time_reach_the_proof(hr: Exchange, database: Database) -> None:
    proof = Asked()
    hr.bind()
    headers = {"X-Signature": "abc", "Count": 7, "Flag": True, "Nested": {"b": [1]}, "None": None}
    hr.publish(
        gzip.compress(event(1)),
        headers=headers,
        content_type="application/json",
        content_encoding="gzip",
        timestamp=1_700_000_000,
    )
    hr.publish(event(2), timestamp=1_700_000_000_000)
    hr.publish(event(3))
    with running(hr.url, database, hr.read(Producer(hr.source, "native", verifier=proof))):
        eventually(lambda: len(stored(database)) == 3, within=SOON)
    first, second, third = proof.messages
    assert first.body == event(1)
    assert first.headers == {
        "content-type": "application/json",
        "x-signature": "abc",
        "count": "7",
        "flag": "true",
        "nested": '{"b": [1]}',
        "none": "",
    }
    assert first.arrived == second.arrived == datetime.fromtimestamp(1_700_000_000, UTC)
    assert third.arrived is None


def test_what_is_not_proven_is_rejected(hr: Exchange, database: Database) -> None:
    proof = Asked()
    proof.answer = Unverified("the signature is wrong")
    hr.bind()
    hr.disable(1)
    with running(hr.url, database, hr.read(Producer(hr.source, "native", verifier=proof))):
        eventually(lambda: reasons(database) == ["unverified: the signature is wrong"], within=SOON)
    assert hr.ready() == 0


def test_a_message_whose_key_cannot_be_had_waits_and_holds_up_no_other_source(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "KEYS_PAUSE", 1.0)
    proof = Asked()
    proof.answer = KeysUnavailable("nobody answers")
    other = Exchange(hr.url)
    hr.bind()
    other.bind()
    hr.disable(1)
    other.disable(2)
    queues = [hr.read(Producer(hr.source, "native", verifier=proof)), other.read()]
    with running(hr.url, database, *queues):
        eventually(lambda: stored(database) == ["2"] and len(proof.messages) >= 3, within=SOON)
        assert len(proof.messages) < 10  # no hot loop
        proof.answer = None
        eventually(lambda: stored(database) == ["2", "1"], within=SOON)
    assert hr.ready() == 0
    other.delete()


def test_what_cannot_be_stored_in_any_form_is_set_aside(
    hr: Exchange, database: Database, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    accept = inbox.accept

    def failing(tx: Any, source: Any, received: list[Received]) -> Any:
        if any(b"unstorable" in one.body for one in received):
            raise ValueError
        return accept(tx, source, received)

    monkeypatch.setattr(inbox, "accept", failing)
    hr.bind()
    dead = hr.ready(DEAD)
    hr.publish(event(1), b"unstorable", event(2))
    with running(hr.url, database, hr.read()):
        eventually(lambda: stored(database) == ["1", "2"], within=SOON)
        eventually(lambda: hr.ready(DEAD) == dead + 1, within=SOON)
    assert hr.ready() == 0
    with running(hr.url, database, hr.read()):
        eventually(lambda: "messages_set_aside" in capsys.readouterr().out, within=SOON)
    with Connection(hr.url) as connection:
        connection.default_channel.queue_purge(DEAD)


def test_an_exchange_that_is_missing_is_waited_for(
    hr: Exchange, database: Database, capsys: Any
) -> None:
    other = Exchange(hr.url)
    hr.bind()
    with Connection(hr.url) as connection:
        connection.default_channel.exchange_delete(other.name)
    with running(hr.url, database, other.read(), hr.read()):
        hr.disable(1)
        eventually(lambda: stored(database) == ["1"], within=SOON)
        eventually(lambda: "exchange_missing" in capsys.readouterr().out, within=SOON)
        other.declare()
        eventually(lambda: bound_now(other), within=SOON)
        eventually(lambda: stored(database) == ["1", "2"], within=SOON)
    other.delete()


def bound_now(other: Exchange) -> bool:
    """Publish event 2, which an exchange without a queue throws away; says whether it was taken."""
    with Connection(other.url, transport_options={"confirm_publish": True}) as connection:
        channel = connection.default_channel
        try:
            message = channel.prepare_message(event(2))
            channel.basic_publish(message, other.name, "accounts.changed", mandatory=True)
        except connection.channel_errors:
            return False
        return True


def test_a_queue_that_is_deleted_is_made_anew(hr: Exchange, database: Database) -> None:
    with running(hr.url, database, hr.read()):
        eventually(lambda: bound_now(hr), within=SOON)
        eventually(lambda: stored(database) == ["2"], within=SOON)
        hr.delete_queue()
        eventually(lambda: bound_now(hr), within=SOON)
        hr.disable(3)
        eventually(lambda: stored(database) == ["2", "3"], within=SOON)


def test_a_queue_that_an_operator_made_is_taken_as_it_is(hr: Exchange, database: Database) -> None:
    with Connection(hr.url) as connection:  # classic
        connection.default_channel.queue_declare(hr.queue, durable=True, auto_delete=False)
    with running(hr.url, database, hr.read()):
        eventually(lambda: bound_now(hr), within=SOON)
        eventually(lambda: stored(database) == ["2"], within=SOON)


def test_many_consumers_share_the_work(hr: Exchange, database: Database) -> None:
    hr.bind()
    with ExitStack() as both:
        for _ in range(3):
            both.enter_context(running(hr.url, database, hr.read()))
        hr.disable(*range(600))
        eventually(lambda: len(stored(database)) == 600, within=SOON)
    assert sorted(map(int, map(str, stored(database)))) == list(range(600))
    assert hr.ready() == 0


def test_a_broker_that_ends_and_comes_back(database: Database) -> None:
    need("RabbitMQ", PROGRAM.exists(), "apt-get install rabbitmq-server")
    with temporary_home() as home:
        server = RabbitMQ(home)
        try:
            server.start()
            hr = Exchange(server.url())
            hr.bind()
            with running(hr.url, database, hr.read()):
                hr.disable(1)
                eventually(lambda: stored(database) == ["1"], within=SOON)
                server.stop(signal.SIGKILL)
                server.start()
                eventually(lambda: published(hr), within=60)
                eventually(lambda: stored(database) == ["1", "2"], within=SOON)
        finally:
            server.close()


def published(hr: Exchange) -> bool:
    try:
        hr.disable(2)
    except Exception:  # quorum queues take a moment to elect their leader
        return False
    return True
