"""Records that a query reads from the product's own PostgreSQL, without writing anything there."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import psycopg

from models.errors import Misconfigured, Refused
from models.secret_files import read_private
from worker.cli.import_files import Item, Record
from worker.settings_environment import variable_of

_PAGE: Final = 2000
"""Rows that the server hands over at a time."""

_VARIABLE: Final = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")


def url(place: str) -> str:
    """The address of a database: in the variable NAME for `env:NAME`, or in a private file.

    Misconfigured where it is not there, and where it is the address itself.
    """
    if "://" in place:
        raise Misconfigured(
            "--from takes a file, or env:NAME, and not the address: others see arguments, and "
            "there may be a password in it"
        )
    variable = _VARIABLE.fullmatch(place)
    if variable:
        found = variable_of(variable[1])
        where = f"the variable {variable[1]}"
    else:
        found = read_private(Path(place)).decode("utf-8", "replace").strip()
        where = place
    if urlsplit(found).scheme not in ("postgresql", "postgres"):
        raise Misconfigured(f"{where} holds no address like postgresql://user@host/database")
    return found


@contextmanager
def rows(query: str, address: str) -> Iterator[tuple[Sequence[str], Iterator[Item]]]:
    """The columns of a query's answer, and its rows, read from the server as they are needed.

    Refused as `source_unavailable`, `query_failed`, `column_repeated`; none repeats the address.
    """
    try:
        connection = psycopg.connect(
            address,
            options="-c default_transaction_read_only=on -c timezone=UTC",
            connect_timeout=10,
            application_name="keyturn import",
        )
    except (psycopg.Error, ValueError):
        raise Refused(
            "source_unavailable",
            "the product's database does not let us in: try the same address with psql",
        ) from None
    with connection, connection.cursor("keyturn_import") as cursor:
        cursor.itersize = _PAGE
        with _failing():
            cursor.execute(query.encode())
        columns = [column.name.lower() for column in cursor.description or ()]
        if len(set(columns)) < len(columns):
            raise Refused("column_repeated", "two columns of the query have the same name")
        yield columns, _records(cursor, columns)


def _records(cursor: Any, columns: Sequence[str]) -> Iterator[Item]:
    with _failing():
        for number, row in enumerate(cursor, 1):
            given = zip(columns, row, strict=True)
            yield Record(number, {n: _plain(v) for n, v in given if v is not None and v != ""})


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        message = f"the product's database refuses the query: {why}"
        raise Refused("query_failed", message) from None


def _plain(value: Any) -> Any:
    """A value as a file would have it: ids and numbers are texts, times stay times."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | UUID):
        return str(value)
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return value
