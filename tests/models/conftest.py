"""A scene, or a sealed audit, for tests of the domain: one database each, emptied before each."""

from collections.abc import Iterator

import psycopg
import pytest

from models.base import Base
from tests.models.chain import Chain, create, emptied
from tests.models.scene import Scene, frozen_scene
from worker.embedded.postgres import Postgres


@pytest.fixture(scope="session")
def scene_database(postgres: Postgres, migrated_template: str) -> Iterator[psycopg.Connection]:
    """The database of all scenes: emptying it costs a tenth of making one."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE scenes TEMPLATE {migrated_template}")
    with psycopg.connect(postgres.url("scenes"), autocommit=True) as connection:
        yield connection


@pytest.fixture
def scene(postgres: Postgres, scene_database: psycopg.Connection) -> Iterator[Scene]:
    """An account and the verbs to rotate its keys, at a time that stands still."""
    tables = ", ".join(f"keyturn.{table.name}" for table in Base.metadata.sorted_tables)
    scene_database.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")
    with frozen_scene(postgres.url("scenes")) as made:
        yield made


@pytest.fixture(scope="session")
def chain_url(postgres: Postgres, migrated_template: str) -> str:
    """The database of all chains."""
    return create(postgres, migrated_template, "chains")


@pytest.fixture
def chain(chain_url: str) -> Iterator[Chain]:
    """An audit with nothing in it."""
    with emptied(chain_url) as chain:
        yield chain


@pytest.fixture
def sealed(chain: Chain) -> Chain:
    """Nine entries in three seals."""
    chain.write(*(f"action {n}" for n in range(9)))
    chain.seal_all()
    assert [seal["entries"] for seal in chain.seals()] == [3, 3, 3]
    assert chain.problems() == []
    return chain
