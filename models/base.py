"""The database as the domain sees it: tables, one transaction, one instant."""

import functools
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import psycopg
from sqlalchemy import CursorResult, Engine, MetaData, RowMapping, TextClause, create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.pool import NullPool

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
def _statement(sql: str, bound_now: bool) -> TextClause:
    return text(sql if bound_now else re.sub(r":now\b", "transaction_timestamp()", sql))


@dataclass(frozen=True)
class Tx:
    """One transaction and its one instant.

    `:now` in a statement is that instant: the transaction's own timestamp in production, a bound
    value where a clock was given (tests). Flows to ring and alarms to raise once the transaction
    has committed are collected in `rings` and `alarms`: before the commit they would announce what
    nobody can see, and after a rollback what has not happened.
    """

    session: Session
    frozen: datetime | None
    rings: set[str]
    alarms: list[dict[str, object]]

    def execute(self, sql: str, /, **params: Any) -> CursorResult[Any]:
        """Run one statement; its result is read with SQLAlchemy's usual methods."""
        if self.frozen is not None and ":now" in sql:
            params["now"] = self.frozen
        result = self.session.execute(_statement(sql, self.frozen is not None), params)
        assert isinstance(result, CursorResult)
        return result

    def rows(self, sql: str, /, **params: Any) -> Sequence[RowMapping]:
        """All rows of a statement, by column name."""
        return self.execute(sql, **params).mappings().all()

    def row(self, sql: str, /, **params: Any) -> RowMapping | None:
        """The first row of a statement, or None."""
        return self.execute(sql, **params).mappings().first()

    def scalar(self, sql: str, /, **params: Any) -> Any:
        """The first column of the first row, or None."""
        return self.execute(sql, **params).scalar()

    def count(self, sql: str, /, **params: Any) -> int:
        """How many rows a statement changed."""
        return self.execute(sql, **params).rowcount

    def now(self) -> datetime:
        """The transaction's instant as a value, for what is decided outside SQL."""
        if self.frozen is not None:
            return self.frozen
        value: datetime = self.scalar("SELECT transaction_timestamp()")
        return value

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
            {"pool_size": pool_size, "max_overflow": 0, "pool_timeout": 5, "pool_pre_ping": True}
            if pool_size
            else {"poolclass": NullPool}
        )
        self.engine: Engine = create_engine(
            url,
            hide_parameters=True,
            connect_args=self._connect_args,
            **pool,
        )

    @contextmanager
    def begin(self) -> Iterator[Tx]:
        """One transaction: committed at the end of the block, rolled back on an exception."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            tx = Tx(session, self.clock() if self.clock else None, set(), [])
            yield tx
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
        return psycopg.connect(**{**arguments, **self._connect_args, "autocommit": True})

    def close(self) -> None:
        """Give all connections back to the server."""
        self.engine.dispose()


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
