"""The real way in for every test of bad input: streams, queues, the command line."""

from collections.abc import Iterator

import pytest
import redis
from psycopg import sql

from models.base import Database
from tests.bad_input.inlet import Inlet
from tests.worker.cli.conftest import bare_cli, cli
from tests.worker.conftest import site
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey
from worker.intake import stream

__all__ = ["bare_cli", "cli", "inlet", "site"]


@pytest.fixture(scope="module")
def inlet(
    request: pytest.FixtureRequest, postgres: Postgres, migrated_template: str, valkey: Valkey
) -> Iterator[Inlet]:
    """The module's own database, with an intake that reads Valkey into it."""
    name = request.module.__name__.rpartition(".")[2]
    names = {"name": sql.Identifier(name), "template": sql.Identifier(migrated_template)}
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names))
    database = Database(postgres.url(name), pool_size=2)
    with redis.Redis.from_url(valkey.url()) as client, pytest.MonkeyPatch.context() as patch:
        client.flushall()
        patch.setattr(stream, "BLOCK_MS", 20)
        yield Inlet(client, database)
    database.close()
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))
