"""Secrets as they would show, and the places where one looks for them."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import psycopg
import redis

from models.key_text import parse

Places = Mapping[str, bytes]
"""What was found at each place, whole."""


@dataclass
class Canaries:
    """Secrets by name, in every form in which one may come to light."""

    forms: dict[str, set[bytes]] = field(default_factory=dict)

    def add(self, name: str, secret: str | bytes) -> None:
        """Look for this secret from now on. A key is known by its random part alone."""
        plain = secret.encode() if isinstance(secret, str) else secret
        bodies = {plain}
        if isinstance(secret, str) and (parsed := parse(secret)) is not None:
            bodies.add(plain.removeprefix(f"{parsed.prefix}_".encode())[:27])
        self.forms[name] = {form for body in bodies for form in _forms(body)}

    def found(self, places: Places) -> set[tuple[str, str]]:
        """Which secret shows where."""
        return {
            (name, place)
            for place, content in places.items()
            for name, forms in self.forms.items()
            if any(form in content for form in forms)
        }


def _forms(secret: bytes) -> Iterator[bytes]:
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    # As repr and JSON write bytes and text, and as a URL does.
    yield repr(secret)[2:-1].encode()
    yield json.dumps(secret.decode("latin-1"))[1:-1].encode()
    yield quote(secret).encode()
    for shift in range(3):  # inside of something longer, base64 depends on where it begins
        whole = base64.b64encode(bytes(shift) + secret)
        yield whole[(0, 2, 3)[shift] : len(whole) - (len(whole) > 8) * 4]
        yield base64.urlsafe_b64encode(bytes(shift) + secret)[(0, 2, 3)[shift] : -4]


class Wire:
    """All that clients tell a Redis or Valkey server, but for AUTH, which it hides itself."""

    def __init__(self, url: str) -> None:
        self._client = redis.Redis.from_url(url, socket_timeout=None)
        self._heard: list[bytes] = []
        self._done = threading.Event()

    @contextmanager
    def tapped(self) -> Iterator["Wire"]:
        """Listen until the block ends."""
        thread = threading.Thread(target=self._listen, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._client.ping()  # one more command, so that the listener wakes up
            thread.join(10)

    def content(self) -> bytes:
        return b"\n".join(self._heard)

    def _listen(self) -> None:
        with self._client.monitor() as monitor:  # type: ignore[no-untyped-call]
            for heard in monitor.listen():
                self._heard.append(str(heard["command"]).encode())
                if self._done.is_set():
                    return


def files(directory: Path, pattern: str) -> dict[str, bytes]:
    """Each file below a directory, by its name there."""
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob(pattern))
        if file.is_file()
    }


def tables(database_url: str) -> dict[str, bytes]:
    """Each table of the schema, its rows as text."""
    with psycopg.connect(database_url) as connection:
        names = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'keyturn' ORDER BY 1"
        ).fetchall()
        return {
            f"table {name}": "\n".join(
                str(row) for (row,) in connection.execute(f"SELECT t::text FROM keyturn.{name} t")
            ).encode()
            + b"\n"
            + b"\n".join(_bytes_of(connection, name))
            for (name,) in names
        }


def _bytes_of(connection: psycopg.Connection, table: str) -> Iterator[bytes]:
    """The columns of bytes as they are: as text they would be hex, which is a form as well."""
    columns = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_schema = 'keyturn' AND table_name = %s AND data_type = 'bytea'",
        [table],
    ).fetchall()
    for (column,) in columns:
        for (value,) in connection.execute(f"SELECT {column} FROM keyturn.{table}"):
            yield bytes(value or b"")


def keys(url: str) -> dict[str, bytes]:
    """Every key of a Redis or Valkey server, streams and queues among them."""
    with redis.Redis.from_url(url) as client:
        return {f"broker {key.decode()}": client.dump(key) or b"" for key in client.scan_iter()}
