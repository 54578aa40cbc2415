"""Statements go by the driver; SQLAlchemy's listeners and errors stay as they were."""

from collections.abc import Iterator

import psycopg
import pytest
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from models.base import Database, Tx, is_server_trouble


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    made = Database(database_url, pool_size=3)
    yield made
    made.close()


@pytest.fixture
def server(database_url: str) -> Iterator[psycopg.Connection]:
    """A session of its own, by which others are ended."""
    with psycopg.connect(database_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection


def end_sessions(server: psycopg.Connection) -> None:
    server.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'keyturn'"
    )


def session(tx: Tx) -> int:
    number: int = tx.scalar("SELECT pg_backend_pid()")
    return number


def test_a_parameter_may_stand_in_several_places(database: Database) -> None:
    with database.begin() as tx:
        row = tx.row(
            "SELECT :one::int + :one::int AS twice, (ARRAY[:one, :two]::int[])[1:2] AS both,"
            " ':' || '%' || '%s' AS signs",
            one=3,
            two=4,
            unused=5,
        )
    assert row == {"twice": 6, "both": [3, 4], "signs": ":%%s"}


def test_a_parameter_that_is_not_given_is_an_error(database: Database) -> None:
    with pytest.raises(KeyError, match="missing"), database.begin() as tx:
        tx.execute("SELECT :missing")


@pytest.mark.parametrize(
    ("sql", "rows", "count"),
    [
        ("SELECT FROM generate_series(1, 3)", [{}, {}, {}], 3),
        ("SELECT 1 AS one WHERE false", [], 0),
        ("CREATE TEMPORARY TABLE passing (id int) ON COMMIT DROP", [], -1),
    ],
)
def test_rows_and_counts(
    database: Database, sql: str, rows: list[dict[str, object]], count: int
) -> None:
    with database.begin() as tx:
        answer = tx.execute(sql)
    assert (answer.rows(), answer.rowcount) == (rows, count)
    assert (answer.first(), answer.scalar()) == (rows[0] if rows else None, None)


def test_an_answer_stays_as_it_is_when_the_next_one_comes(database: Database) -> None:
    with database.begin() as tx:
        numbers = tx.execute("SELECT generate_series(1, 3)")
        assert tx.scalar("SELECT 4") == 4
        assert numbers.scalars().all() == [1, 2, 3]


def test_listeners_of_the_engine_hear_of_a_statement_and_of_its_error(database: Database) -> None:
    heard = list[str]()

    def before(_: object, __: object, sql: str, *___: object) -> None:
        heard.append(f"before {sql}")

    def after(_: object, __: object, sql: str, *___: object) -> None:
        heard.append(f"after {sql}")

    event.listen(database.engine, "before_cursor_execute", before)
    event.listen(database.engine, "after_cursor_execute", after)
    event.listen(
        database.engine, "handle_error", lambda at: heard.append(at.original_exception.sqlstate)
    )
    with pytest.raises(DBAPIError):
        database.run(lambda tx: [tx.execute(sql) for sql in ("SELECT 1", "SELECT 1 / 0")])
    assert heard == ["before SELECT 1", "after SELECT 1", "before SELECT 1 / 0", "22012"]


def test_after_an_error_within_a_savepoint_the_transaction_goes_on(database: Database) -> None:
    with database.begin() as tx:
        tx.execute("INSERT INTO keyturn.schedule_runs (job) VALUES ('one')")
        savepoint = tx.savepoint()
        with pytest.raises(IntegrityError):
            tx.execute("INSERT INTO keyturn.schedule_runs (job) VALUES ('one')")
        tx.undo(savepoint)
        assert tx.scalar("SELECT count(*) FROM keyturn.schedule_runs WHERE job = 'one'") == 1


def test_an_error_shows_no_value(database: Database) -> None:
    with pytest.raises(DBAPIError) as error, database.begin() as tx:
        tx.execute("SELECT CAST(:text AS uuid), 1 / 0", text="f6f8a51c-0000-4000-8000-000000000000")
    assert "f6f8a51c" not in str(error.value)


def test_a_session_that_ends_within_a_transaction_is_server_trouble(
    database: Database, server: psycopg.Connection
) -> None:
    sessions = list[int]()

    def work(tx: Tx) -> None:
        sessions.append(session(tx))
        end_sessions(server)
        session(tx)

    with pytest.raises(OperationalError) as error:
        database.run(work)
    assert is_server_trouble(error.value)
    assert error.value.connection_invalidated
    with database.begin() as tx:
        assert session(tx) not in sessions


def test_sessions_that_ended_between_transactions_are_replaced_unnoticed(
    database: Database, server: psycopg.Connection
) -> None:
    """All of them: what begins is asked for first, and only then is anything done."""
    with database.begin() as one, database.begin() as two, database.begin() as three:
        before = {session(tx) for tx in (one, two, three)}
    end_sessions(server)
    for _ in range(2):
        with database.begin() as one, database.begin() as two, database.begin() as three:
            after = {session(tx) for tx in (one, two, three)}
    assert len(before) == len(after) == 3
    assert not before & after


def test_a_person_who_interrupts_a_statement_leaves_no_session_behind_in_it(
    database: Database,
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with database.begin() as tx:
        before = session(tx)
    event.listen(database.engine, "after_cursor_execute", interrupt)
    with pytest.raises(KeyboardInterrupt), database.begin() as tx:
        tx.execute("SELECT 1")
    event.remove(database.engine, "after_cursor_execute", interrupt)
    with database.begin() as tx:
        assert session(tx) != before


def test_a_commit_that_fails_outside_the_server_leaves_nothing_open(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection goes back to the pool: whoever has it next must not commit what was left."""

    def fail(_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patched:
        patched.setattr(database.engine.dialect, "do_commit", fail)
        with pytest.raises(RuntimeError), database.begin() as tx:
            tx.execute(
                "INSERT INTO keyturn.roles (name, permissions, grantable) VALUES ('x', '{}', true)"
            )
    with database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.roles WHERE name = 'x'") == 0
