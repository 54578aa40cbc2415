"""What every test may ask for: real servers, and a database of its own."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import redis
from hypothesis import HealthCheck, settings
from psycopg import sql

from models import migrations
from tests.servers import FAST, rabbitmq, temporary_home
from worker.embedded.default_secrets import make_default_secrets
from worker.embedded.home import Home
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey

_TEMPLATE: Final = "migrated"
_numbers = itertools.count(1)

# A busy machine is no failure. In CI (CI=true) Hypothesis itself has it so.
settings.register_profile(
    "patient", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


def pytest_configure() -> None:
    """A shell that starts the tests in the background lets all processes ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what waits for real seconds to pass: the rest runs beside it."""
    items.sort(
        key=lambda item: (not item.nodeid.startswith("tests/flows/"), "test_up" not in item.nodeid)
    )


@pytest.fixture(scope="session")
def servers_home() -> Iterator[Home]:
    """The directory of this run's servers."""
    with temporary_home() as home:
        yield home


@pytest.fixture(scope="session")
def secrets_dir(servers_home: Home) -> Path:
    """A directory with `pepper-1` and `kek-1`; what `database_url` leads to knows it."""
    return make_default_secrets(servers_home)


@pytest.fixture(scope="session")
def postgres(servers_home: Home, secrets_dir: Path) -> Iterator[Postgres]:
    """This run's PostgreSQL, without fsync."""
    server = Postgres(servers_home, options=FAST)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey(servers_home: Home) -> Iterator[Valkey]:
    """This run's Valkey."""
    server = Valkey(servers_home)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def rabbitmq_url(servers_home: Home) -> Iterator[str]:
    """This run's RabbitMQ; its tests skip where it is not installed, and fail in CI."""
    with rabbitmq(servers_home) as url:
        yield url


@pytest.fixture(scope="session")
def migrated_template(postgres: Postgres) -> str:
    """The name of a migrated database that others are copied from."""
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(_TEMPLATE)))
    migrations.upgrade(postgres.url(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def empty_database_url(postgres: Postgres) -> Iterator[str]:
    """A fresh database without Keyturn's schema."""
    yield from _database(postgres, "template1", None)


@pytest.fixture
def database_url(postgres: Postgres, migrated_template: str, secrets_dir: Path) -> Iterator[str]:
    """A fresh, migrated database; `models.Client` finds its secrets by it."""
    yield from _database(postgres, migrated_template, secrets_dir)


@pytest.fixture
def broker_url(valkey: Valkey) -> str:
    """Valkey, emptied."""
    with redis.Redis.from_url(valkey.url()) as client:
        client.flushall()
    return valkey.url()


def _database(postgres: Postgres, template: str, secrets_dir: Path | None) -> Iterator[str]:
    name = f"test_{next(_numbers)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    with postgres.connect() as connection:
        # Without fsync, files are copied four times as fast as pages go through the log.
        create = sql.SQL("CREATE DATABASE {name} TEMPLATE {template} STRATEGY FILE_COPY")
        connection.execute(create.format(**identifiers))
    if secrets_dir:
        postgres.set_for_database("keyturn.secrets_dir", str(secrets_dir), name)
    yield postgres.url(name)
    with postgres.connect() as connection:
        drop = sql.SQL("DROP DATABASE {name} WITH (FORCE)")
        connection.execute(drop.format(**identifiers))


@pytest.fixture
def no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory and an environment without settings; returns the directory."""
    for name in list(os.environ):
        if name.upper().startswith("KEYTURN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path
