"""Rows that a transaction collects, and writes by one statement."""

from collections.abc import Iterator

import pytest

from models import audit
from models.base import Database, Tx


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, pool_size=1)
    yield made
    made.close()


def written(tx: Tx) -> list[str]:
    return list(tx.execute("SELECT action FROM keyturn.audit ORDER BY id").scalars())


def note(tx: Tx, *actions: str) -> None:
    for action in actions:
        audit.record(tx, "tester", action)


def test_they_are_there_after_the_commit_in_their_order(database: Database) -> None:
    with database.begin() as tx:
        note(tx, "first", "second")
    with database.begin() as tx:
        assert written(tx) == ["first", "second"]


def test_nothing_is_there_after_a_rollback(database: Database) -> None:
    def fails(tx: Tx) -> float:
        note(tx, "first")
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        database.run(fails)
    with database.begin() as tx:
        assert not written(tx)


def test_a_statement_of_the_transaction_that_names_the_table_finds_them(database: Database) -> None:
    with database.begin() as tx:
        note(tx, "first")
        assert written(tx) == ["first"]
        note(tx, "second")
        assert written(tx) == ["first", "second"]


def test_what_another_statement_writes_comes_after_them(database: Database) -> None:
    with database.begin() as tx:
        note(tx, "first")
        tx.execute("INSERT INTO keyturn.audit (at, actor, action) VALUES (:now, 'x', 'second')")
        note(tx, "third")
    with database.begin() as tx:
        assert written(tx) == ["first", "second", "third"]


def test_only_those_after_a_savepoint_are_undone_with_it(database: Database) -> None:
    with database.begin() as tx:
        note(tx, "before")
        savepoint = tx.savepoint()
        note(tx, "undone")
        tx.undo(savepoint)
        note(tx, "after")
    with database.begin() as tx:
        assert written(tx) == ["before", "after"]


def test_those_after_a_savepoint_that_stays_are_written(database: Database) -> None:
    with database.begin() as tx:
        savepoint = tx.savepoint()
        note(tx, "within")
        savepoint.commit()
    with database.begin() as tx:
        assert written(tx) == ["within"]
