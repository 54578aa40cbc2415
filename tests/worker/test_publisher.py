"""Rings through a network that swallows them: each gives up in time, and the next one works."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from kombu import Connection
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models import inbox
from models.base import Database
from models.events import Action
from models.inbox import Received, Source
from tests.chaos.proxy import Mood, Proxy
from tests.eventually import eventually
from tests.flows.processes import environment, process
from tests.world import event
from worker import setup
from worker.app import QUEUE
from worker.settings import load_settings

FLOW = "keys.settle"


@pytest.fixture
def proxy(either_url: str) -> Iterator[Proxy]:
    parts = urlsplit(either_url)
    with Proxy(("127.0.0.1", parts.port or 0)).running() as running:
        yield running


@pytest.fixture
def ring(
    either_url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> setup._Publisher:
    """What rings through the proxy, and has done so once."""
    monkeypatch.setattr(setup, "CONFIRM_WITHIN", 1.0)
    monkeypatch.chdir(tmp_path)
    port = urlsplit(either_url).port
    monkeypatch.setenv("KEYTURN_BROKER_URL", either_url.replace(f":{port}", f":{proxy.port}"))
    made = setup._Publisher(load_settings())
    made(FLOW)
    return made


def test_a_ring_that_nobody_answers_gives_up_and_the_next_one_works(
    proxy: Proxy, ring: setup._Publisher
) -> None:
    proxy.set(Mood.BLACK_HOLE)
    began = time.monotonic()
    with pytest.raises(Exception, match="(?i)time"):
        ring(FLOW)
    assert time.monotonic() - began < 15  # on Redis its socket timeout of 10 seconds
    proxy.set(Mood.PASS)
    began = time.monotonic()
    ring(FLOW)
    assert time.monotonic() - began < 5


def test_beat_goes_on_after_its_connection_broke(
    either_url: str, proxy: Proxy, secrets_dir: Path, tmp_path: Path
) -> None:
    through = either_url.replace(f":{urlsplit(either_url).port}", f":{proxy.port}")
    env = environment("postgresql://nobody@127.0.0.1:1/none", through, secrets_dir)
    schedule = ("--schedule", str(tmp_path / "schedule"), "--pidfile", "")
    with process(env, "celery", "-A", "worker.main", "beat", *schedule):
        eventually(lambda: waiting(either_url) > 1, within=90)
        proxy.set(Mood.RESET)
        proxy.set(Mood.PASS)
        seen = waiting(either_url)
        eventually(lambda: waiting(either_url) > seen + 2, within=90)


def waiting(url: str) -> int:
    """How many messages lie in the queue."""
    with Connection(url) as connection:
        return int(connection.default_channel.queue_declare(QUEUE, passive=True).message_count)


def test_two_hundred_at_once_are_stored_though_the_broker_answers_nobody(
    proxy: Proxy, ring: setup._Publisher, database_url: str
) -> None:
    """Each wants to ring; nobody waits for a connection to ring by for longer than is promised."""
    ring._app.conf.update(broker_pool_limit=2, broker_pool_acquire_timeout=1)  # 10 in production
    proxy.set(Mood.BLACK_HOLE)
    database = Database(database_url, pool_size=4)
    told: list[object] = []
    database.on_commit = ring_each(ring, told)

    def store(number: int) -> None:
        one = Received(str(number), event(Action.DISABLED, event_id=str(number)), {}, b"")
        try:
            database.run(lambda tx: inbox.accept(tx, Source("okta", "okta"), [one]))
        except PoolTimeout:  # on a busy machine; who is served then is no matter of rings
            store(number)

    began = time.monotonic()
    with ThreadPoolExecutor(200) as threads:
        list(threads.map(store, range(200)))
    assert time.monotonic() - began < 45  # and not 200 seconds for four connections
    assert len(told) == 200
    assert all(isinstance(error, Exception) for error in told)
    with database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.inbox WHERE state = 'received'") == 200
    database.close()


def ring_each(ring: Callable[[str], None], told: list[object]) -> Callable[[set[str]], None]:
    """Rings for every commit, where the doorbell itself leaves it at one that is outstanding."""

    def on_commit(flows: set[str]) -> None:
        try:
            for flow in flows:
                ring(flow)
            told.append(None)
        except Exception as error:
            told.append(error)

    return on_commit
