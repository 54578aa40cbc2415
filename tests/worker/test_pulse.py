"""A worker ticks by itself where beat is silent."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from models.base import Database
from models.key_text import Peppers
from models.keyring import Keyring
from models.policy import Policy
from models.sealing import Sealer
from tasks import Runtime, flows, run
from tests.world import EPOCH
from worker.pulse import Pulse
from worker.schedule import TICK

EVERY = timedelta(seconds=5)


@pytest.fixture
def rung() -> list[set[str]]:
    return []


@pytest.fixture
def runtime(database_url: str, rung: list[set[str]]) -> Runtime:
    database = Database(database_url, clock=lambda: datetime.now(UTC), on_commit=rung.append)
    keyring = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))
    return Runtime(database, Policy(), keyring, {}, {"keys.expire_due": EVERY})


def test_a_worker_ticks_only_where_beat_is_silent(runtime: Runtime, rung: list[set[str]]) -> None:
    pulse = Pulse(lambda: runtime, EVERY)
    with freeze_time(EPOCH) as clock:
        run(flows()[TICK], runtime)
        assert rung == [{"keys.expire_due"}]
        clock.tick(14)
        pulse.beat()
        assert len(rung) == 1
        clock.tick(1)
        pulse.beat()
        assert len(rung) == 2
        pulse.beat()
        assert len(rung) == 2


def test_a_database_that_is_away_does_not_end_the_thread(runtime: Runtime) -> None:
    calls = threading.Semaphore(0)

    def away() -> Runtime:
        calls.release()
        raise ConnectionError

    pulse = Pulse(away, timedelta(milliseconds=1))
    pulse.start()
    assert all(calls.acquire(timeout=20) for _ in range(3))
    pulse.stop()
