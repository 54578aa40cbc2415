"""A Valkey, a database, and an intake between them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from models.base import Database
from tests.worker.intake.exchanges import Exchange
from tests.worker.intake.proofs import Site
from tests.worker.intake.streams import SOURCES, Quiet
from worker.intake import stream as under_test
from worker.intake.stream import StreamIntake
from worker.streams import connect


@pytest.fixture
def redis(broker_url: str) -> Iterator["Redis"]:
    with Redis.from_url(broker_url) as client:
        yield client


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, pool_size=4)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "BLOCK_MS", 50)


@pytest.fixture
def once(broker_url: str, database: Database) -> Callable[..., None]:
    """Run an intake until it has nothing left to do."""

    def run(consumer: str = "one", *, dead_after: float = 30.0) -> None:
        with connect(broker_url) as client:
            quiet = Quiet(client)
            intake = StreamIntake(client, database, SOURCES, consumer, dead_after=dead_after)
            intake.run(quiet)

    return run


@pytest.fixture
def idp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A place for the settings, secrets and keys of a source with a proof."""
    return Site(tmp_path, monkeypatch)


@pytest.fixture
def hr(rabbitmq_url: str) -> Iterator[Exchange]:
    made = Exchange(rabbitmq_url)
    yield made
    made.delete()
