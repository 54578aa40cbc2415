"""The database as the domain sees it: tables, one transaction, one instant."""

import functools
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus
from sqlalchemy import (
    Connection,
    Engine,
    MetaData,
    NestedTransaction,
    create_engine,
    event,
)
from sqlalchemy.exc import DBAPIError, InvalidatePoolError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from .forks import begins_anew
from .statements import Answer, Row, Statements

SCHEMA = "keyturn"

SILENT_AFTER = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""When a server that vanished without a word is given up: one that owes an answer (seconds), one
that has not confirmed a question (milliseconds). The system's own default is over two hours."""

_home = sys.__dict__.setdefault("_keyturn_models", __name__)
if _home != __name__:
    raise ImportError(
        f"Keyturn's tables are already loaded as {_home!r}; this process imports them again as "
        f"{__name__!r}. Import the library by one name only: `keyturn` in a product, `models` in "
        "Keyturn's own environment."
    )

T = TypeVar("T")


class Base(DeclarativeBase):
    """The declarative base of every table of the schema `keyturn`."""

    metadata = MetaData(
        schema=SCHEMA,
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        },
    )


@dataclass(frozen=True)
class Step:
    """What one batch did: how many things changed, and whether nothing is left to look at."""

    changed: int
    finished: bool


@functools.lru_cache(maxsize=512)
def _by_the_server(sql: str) -> str:
    return re.sub(r":now\b", "transaction_timestamp()", sql)


@dataclass(frozen=True)
class Collected:
    """An INSERT of many rows at once, given as `:rows` in JSON, and the table that it writes."""

    table: str
    insert: str


@functools.lru_cache(maxsize=16)
def _inserting(tables: tuple[Collected, ...]) -> str:
    """One statement that writes them all; the rows of each are given as `:rows0`, `:rows1`..."""
    *others, last = (
        into.insert.replace(":rows", f":rows{place}") for place, into in enumerate(tables)
    )
    parts = ", ".join(f"part{place} AS ({insert})" for place, insert in enumerate(others))
    return f"WITH {parts} {last}" if parts else last


@dataclass(frozen=True)
class Tx:
    """One transaction and its one instant.

    `:now` in a statement is that instant: the transaction's own timestamp in production, a bound
    value where a clock was given (tests). Flows to ring and alarms to raise once the transaction
    has committed are collected in `rings` and `alarms`: before the commit they would announce what
    nobody can see, and after a rollback what has not happened.
    """

    connection: Connection
    frozen: datetime | None
    rings: set[str]
    alarms: list[dict[str, object]]
    _instant: list[datetime] = field(default_factory=list)
    _waiting: dict[Collected, list[dict[str, Any]]] = field(default_factory=dict)
    _statements: Statements = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_statements", Statements(self.connection))

    def execute(self, sql: str, /, **params: Any) -> Answer:
        """Run one statement."""
        if self._waiting:
            self._write([into for into in self._waiting if into.table in sql])
        if self.frozen is None:
            return self._statements.ask(_by_the_server(sql), params)
        return self._statements.ask(sql, {**params, "now": self.frozen})

    def rows(self, sql: str, /, **params: Any) -> Sequence[Row]:
        """All rows of a statement, by column name."""
        return self.execute(sql, **params).rows()

    def row(self, sql: str, /, **params: Any) -> Row | None:
        """The first row of a statement, or None."""
        return self.execute(sql, **params).first()

    def scalar(self, sql: str, /, **params: Any) -> Any:
        """The first column of the first row, or None."""
        return self.execute(sql, **params).scalar()

    def count(self, sql: str, /, **params: Any) -> int:
        """How many rows a statement changed."""
        return self.execute(sql, **params).rowcount

    def add(self, into: Collected, **row: Any) -> None:
        """Add a row to those that one statement writes: before the commit, a savepoint, and any
        other statement that names their table, so that nobody sees them late or out of order."""
        self._waiting.setdefault(into, []).append(row)

    def write_added(self) -> None:
        """Write what was added up to now."""
        self._write(list(self._waiting))

    def _write(self, tables: Sequence[Collected]) -> None:
        if not tables:
            return
        given = {
            f"rows{place}": json.dumps(self._waiting.pop(into), default=str)
            for place, into in enumerate(tables)
        }
        self.execute(_inserting(tuple(tables)), **given)

    def savepoint(self) -> NestedTransaction:
        """A point to which `undo` returns; what must not be undone any more calls its `commit`."""
        self.write_added()
        return self.connection.begin_nested()

    def undo(self, savepoint: NestedTransaction) -> None:
        """Undo everything since a savepoint, and nothing else."""
        self._waiting.clear()
        savepoint.rollback()

    def now(self) -> datetime:
        """The transaction's instant as a value, for what is decided outside SQL."""
        if self.frozen is not None:
            return self.frozen
        if not self._instant:  # it stays the same: asking once is enough
            self._instant.append(self.scalar("SELECT transaction_timestamp()"))
        return self._instant[0]

    def learn(self, now: datetime) -> None:
        """Note the transaction's instant, which a statement has brought along as `:now`."""
        self._instant[:] = [now]

    def ring(self, flow: str) -> None:
        """Ask for `flow` to run once this transaction has committed."""
        self.rings.add(flow)

    def alarm(self, name: str, **facts: object) -> None:
        """Tell a person once this transaction has committed."""
        self.alarms.append({"alarm": name, **facts})


class Database:
    """A PostgreSQL of version 15 or newer with Keyturn's schema in it."""

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], datetime] | None = None,
        pool_size: int = 5,
        statement_timeout_ms: int = 15_000,
        lock_timeout_ms: int = 3_000,
        on_commit: Callable[[set[str]], None] | None = None,
        on_alarm: Callable[[dict[str, object]], None] | None = None,
        name: str = "keyturn",
    ) -> None:
        """`name` is what the server's list of connections shows. `clock` replaces the database's
        own clock (tests); `on_commit` gets the flows to ring, `on_alarm` each alarm with its facts.
        """
        self.clock = clock
        self.on_commit = on_commit
        self.on_alarm = on_alarm
        self._url = url
        options = (
            f"-c timezone=UTC -c statement_timeout={statement_timeout_ms} "
            f"-c lock_timeout={lock_timeout_ms} "
            "-c idle_in_transaction_session_timeout=30000"
        )
        self._connect_args = {
            "options": options,
            "connect_timeout": 5,
            "application_name": name,
            **SILENT_AFTER,
        }
        pool: dict[str, Any] = (
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 5}
            if pool_size
            else {"poolclass": NullPool}
        )
        self.engine: Engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=self._connect_args,
            **pool,
        )
        event.listen(self.engine, "connect", _in_utc)
        event.listen(self.engine, "checkout", _begun)

        begins_anew(self)

    def forget_parent(self) -> None:
        """See models.forks."""
        self.engine.dispose(close=False)

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """One transaction: committed at the end of the block, rolled back on an exception."""
        with self.engine.begin() as connection:
            tx = Tx(connection, self.clock() if self.clock else None, set(), [])
            yield tx
            if connection.in_transaction():  # the work did not roll it back itself
                tx.write_added()
        if self.on_alarm:
            for alarm in tx.alarms:
                self.on_alarm(alarm)
        if tx.rings and self.on_commit:
            self.on_commit(tx.rings)

    def run(self, work: Callable[[Tx], T], *, tries: int = 5) -> T:
        """Run `work` in a transaction of its own, again where PostgreSQL asks for that.

        A deadlock, a serialisation failure and a lock that was not had in time leave nothing
        behind; everything else is raised at once.
        """
        while True:
            tries -= 1
            try:
                with self.begin() as tx:
                    return work(tx)
            except DBAPIError as error:
                if tries <= 0 or not may_repeat(error):
                    raise

    def connect_autocommit(self) -> psycopg.Connection:
        """A connection of the driver's own, outside of the pool, that commits each statement."""
        _, arguments = self.engine.dialect.create_connect_args(self.engine.url)
        connection = psycopg.connect(**{**arguments, **self._connect_args, "autocommit": True})
        _in_utc(connection)
        return connection

    def close(self) -> None:
        """Give all connections back to the server."""
        self.engine.dispose()


def _in_utc(connection: psycopg.Connection, *_: object) -> None:
    """Where days have 24 hours. PGTZ in the environment goes before what the options ask for."""
    if connection.info.parameter_status("TimeZone") != "UTC":
        connection.execute("SET timezone TO 'UTC'")
        connection.commit()


def _begun(connection: psycopg.Connection, entry: ConnectionPoolEntry, *_: object) -> None:
    """Begin the transaction for which a connection is taken from the pool.

    That shows whether the server is still there, before anything depends on it: a connection that
    it has left is replaced by a new one, and so are all others of that age.
    """
    try:
        connection.pgconn.send_query(b"BEGIN")
        (answer,) = connection.wait(generators.execute(connection.pgconn))
        if answer.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(answer)
    except psycopg.Error:
        if entry.info.pop("answered", False):
            raise InvalidatePoolError from None
        raise
    entry.info["answered"] = True


def sqlstate(error: BaseException) -> str:
    """The five-character SQLSTATE of a database error, or an empty string."""
    return getattr(getattr(error, "orig", None), "sqlstate", None) or ""


def may_repeat(error: BaseException) -> bool:
    """Whether the transaction was rolled back for its timing alone (SQLSTATE 40*, 55P03)."""
    return sqlstate(error).startswith("40") or sqlstate(error) == "55P03"


def is_server_trouble(error: BaseException) -> bool:
    """Whether the server failed, not the row: SQLSTATE 08, 40, 53, 55, 57, or no answer at all."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, OperationalError) and not sqlstate(error):
        return True  # the driver found no server that could have named a state
    return sqlstate(error)[:2] in {"08", "40", "53", "55", "57"}
