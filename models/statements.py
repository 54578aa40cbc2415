"""How a statement reaches the server: by the driver itself, on a connection of SQLAlchemy's.

SQLAlchemy keeps the connections and their transactions, and its listeners hear of each statement
and each error as of its own. What it would do with a text and its answer beside that costs the
process more than the driver does.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn, TypeAlias

import psycopg
from sqlalchemy import Connection

Row: TypeAlias = dict[str, Any]
"""A row by the names of its columns."""

_PARAMETER: Final = re.compile(r"(?<![:\w\\]):(\w+)")


@dataclass
class _Text:
    """A statement as the server knows it: `$1`, `$2` stand for these parameters. `names` are the
    columns of its answer, as soon as they were seen once."""

    sql: bytes
    parameters: Sequence[str]
    names: Sequence[str] = field(default=())


@functools.lru_cache(maxsize=512)
def _text(sql: str) -> _Text:
    parameters: list[str] = []

    def place(found: re.Match[str]) -> str:
        if found[1] not in parameters:
            parameters.append(found[1])
        return f"${parameters.index(found[1]) + 1}"

    return _Text(_PARAMETER.sub(place, sql).encode(), parameters)


class Column(list[Any]):
    """The values of an answer's first column."""

    def all(self) -> list[Any]:
        """All of them."""
        return self


@dataclass(frozen=True)
class Answer:
    """What the server said to a statement: its rows, and how many it changed or found."""

    names: Sequence[str]
    values: Sequence[tuple[Any, ...]]
    rowcount: int

    def rows(self) -> list[Row]:
        """All rows, by column name."""
        return [dict(zip(self.names, row, strict=True)) for row in self.values]

    def first(self) -> Row | None:
        """The first row, or None."""
        return dict(zip(self.names, self.values[0], strict=True)) if self.values else None

    def scalars(self) -> Column:
        """The first column."""
        return Column([row[0] for row in self.values])

    def scalar(self) -> Any:
        """The first column of the first row, or None."""
        return self.values[0][0] if self.values and self.names else None


class Statements:
    """Asks the server, one statement after the other, in the transaction of a connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._cursor: psycopg.RawCursor[tuple[Any, ...]] | None = None

    def ask(self, sql: str, given: dict[str, Any]) -> Answer:
        """Ask with a parameter for each `:name`. Raises what SQLAlchemy raises (DBAPIError)."""
        text = _text(sql)
        values = [given[name] for name in text.parameters]
        listeners = self._connection.engine.dispatch
        cursor = self._open()
        try:
            _tell(listeners.before_cursor_execute, self._connection, cursor, sql, given)
            cursor.execute(text.sql, values)
            answer = _answer(cursor, text)
            _tell(listeners.after_cursor_execute, self._connection, cursor, sql, given)
        except BaseException as error:
            self._failed(error, cursor, sql)
        return answer

    def _open(self) -> psycopg.RawCursor[tuple[Any, ...]]:
        if self._cursor is None or self._cursor.closed:
            driver: Any = self._connection.connection.driver_connection
            self._cursor = psycopg.RawCursor(driver)
        return self._cursor

    def _failed(self, error: BaseException, cursor: psycopg.RawCursor[Any], sql: str) -> NoReturn:
        """Let SQLAlchemy raise it as an error of its own, and give up connections that are gone.

        It has no public name for that; tests hold it to what it does.
        """
        if isinstance(error, Exception) and not isinstance(error, psycopg.Error):
            raise error
        self._connection._handle_dbapi_exception(error, sql, None, cursor, None)  # type: ignore[arg-type]


def _answer(cursor: psycopg.RawCursor[tuple[Any, ...]], text: _Text) -> Answer:
    result = cursor.pgresult
    if result is None or not result.nfields:
        # `SELECT FROM` has rows without columns.
        found = cursor.fetchall() if cursor.rownumber is not None else []
        return Answer((), found, cursor.rowcount)
    if len(text.names) != result.nfields:
        text.names = [(result.fname(n) or b"").decode() for n in range(result.nfields)]
    return Answer(text.names, cursor.fetchall(), cursor.rowcount)


def _tell(
    listeners: Iterable[Callable[..., object]],
    connection: Connection,
    cursor: object,
    sql: str,
    given: dict[str, Any],
) -> None:
    for listener in listeners:
        listener(connection, cursor, sql, given, None, False)
