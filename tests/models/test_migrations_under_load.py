"""A migration takes its turn with workers: what deadlocks or waits too long is made anew."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from models import migrations, schema_version
from tests.eventually import eventually


@contextmanager
def held(url: str, table: str) -> Iterator[psycopg.Connection]:
    """A transaction that has written to a table."""
    with psycopg.connect(url) as connection:
        connection.execute(f"LOCK TABLE keyturn.{table} IN ROW EXCLUSIVE MODE")
        yield connection


def test_a_deadlock_with_a_worker_is_tried_again(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url, "0001")
    migrating = threading.Thread(target=migrations.upgrade, args=(empty_database_url,))
    with held(empty_database_url, "outbox") as worker:
        worker.execute("SET deadlock_timeout = '1min'")  # so that the migration is the victim
        migrating.start()
        eventually(lambda: waiting(empty_database_url), every=0.01)
        worker.execute("LOCK TABLE keyturn.inbox IN ROW EXCLUSIVE MODE")
    migrating.join(60)
    assert current(empty_database_url) == schema_version.EXPECTED


def test_a_table_that_stays_locked_ends_it_and_changes_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "TRIES", 2)
    migrations.upgrade(empty_database_url, "0001")
    refused = pytest.raises(OperationalError, match="lock timeout")
    with held(empty_database_url, "outbox"), refused:
        migrations.upgrade(empty_database_url)
    assert current(empty_database_url) == "0001"


def waiting(url: str) -> bool:
    """Whether a process waits for a lock of this database."""
    with psycopg.connect(url) as connection:
        query = """
            SELECT FROM pg_stat_activity
            WHERE wait_event_type = 'Lock' AND datname = current_database()
        """
        return bool(connection.execute(query).rowcount)


def current(url: str) -> str | None:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        return schema_version.current(connection)
