"""A worker on each of the brokers, for the tests of a module."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Queue
from psycopg import sql

from tests.worker.site import Site, running_site
from worker.app import QUEUE
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey


@pytest.fixture(params=["broker_url", "rabbitmq_url"])
def either_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each of the brokers, without what the test leaves in its queue."""
    url = str(request.getfixturevalue(request.param))
    yield url
    with Connection(url) as connection:
        Queue(QUEUE)(connection.default_channel).delete()


@pytest.fixture(scope="module", params=["valkey", "rabbitmq"])
def site(
    request: pytest.FixtureRequest,
    postgres: Postgres,
    migrated_template: str,
    secrets_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """The module's own worker and database on this broker."""
    if request.param == "rabbitmq":
        url: str = request.getfixturevalue("rabbitmq_url")
    else:
        valkey: Valkey = request.getfixturevalue("valkey")
        url = valkey.url()
    name = f"{request.module.__name__.rpartition('.')[2]}_{request.param}"
    names = {"name": sql.Identifier(name), "template": sql.Identifier(migrated_template)}
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
    postgres.set_for_database("keyturn.secrets_dir", str(secrets_dir), name)
    directory = tmp_path_factory.mktemp(name)
    with running_site(url, postgres.url(name), secrets_dir, directory) as made:
        yield made
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))
