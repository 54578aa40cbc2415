"""Secrets of a run, and the search for them wherever something was written."""

import base64
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import psycopg
from psycopg import sql

from tests.chaos.site import Site

_BODY: Final = re.compile(rb"_[0-9A-Za-z]{33}")
"""A key's text from the end of its prefix on: what a fast search can begin with."""


def forms(secret: bytes) -> Iterator[bytes]:
    """What a secret looks like as it is, in hexadecimal, and in base64 of both alphabets."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")


class Canaries:
    """What must not be found anywhere."""

    def __init__(self, few: Mapping[str, bytes], key_texts: Iterable[str]) -> None:
        """`few` by their names, in all forms; texts of keys as they are, in hexadecimal, base64."""
        self._few = {form: name for name, secret in few.items() for form in forms(secret)}
        self._texts = {text.encode() for text in key_texts}
        self._prefixes = {text.rindex(b"_") for text in self._texts}
        self._hidden = {form for text in self._texts for form in list(forms(text))[1:]}
        self._beginnings = {form[:4] for form in self._hidden}
        self._lengths = {len(form) for form in self._hidden}

    @property
    def count(self) -> int:
        return len(set(self._few.values())) + len(self._texts)

    def found(self, content: bytes) -> list[str]:
        """The names of those in `content`; of a key only that it is one."""
        names = {name for form, name in self._few.items() if form in content}
        if self._is_there(content) or self._is_hidden(content):
            names.add("the text of a key")
        return sorted(names)

    def _is_there(self, content: bytes) -> bool:
        return any(
            content[max(0, body.start() - prefix) : body.end()] in self._texts
            for body in _BODY.finditer(content)
            for prefix in self._prefixes
        )

    def _is_hidden(self, content: bytes) -> bool:
        """Whether a key's text is there in hexadecimal or base64.

        Looked for from where one may begin: a look for each of thousands takes hours.
        """
        return any(
            content[place.start() : place.start() + length] in self._hidden
            for beginning in self._beginnings
            for place in re.finditer(re.escape(beginning), content)
            for length in self._lengths
        )


def of_site(site: Site, key_texts: Iterable[str]) -> Canaries:
    """The secrets of a site and the keys that were made in it."""
    few = {
        "the password of the database": site.database_password.encode(),
        "the password of the broker": site.broker_password.encode(),
        "the password of the mail server": site.mail_password.encode(),
    }
    for file in sorted(site.secrets.iterdir()):
        few[file.name] = base64.b64decode(file.read_bytes())
    return Canaries(few, key_texts)


def logs(site: Site) -> Iterator[tuple[str, bytes]]:
    """The logs of all processes and servers."""
    places = [site.home.path / "log", site.home.path / "rabbitmq" / "log"]
    for place in places:
        for file in sorted(place.rglob("*")):
            if file.is_file():
                yield f"the log {file.name}", file.read_bytes()


def database(connection: psycopg.Connection) -> Iterator[tuple[str, bytes]]:
    """Every row of every table, as it is: texts in UTF-8, binary columns raw."""
    tables = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'keyturn'::regnamespace "
        "AND relkind IN ('r', 'p')"
    ).fetchall()
    for (table,) in tables:
        query = sql.SQL("SELECT * FROM keyturn.{}").format(sql.Identifier(table))
        lines = [b"\x1f".join(_flat(value) for value in row) for row in connection.execute(query)]
        yield f"the table {table}", b"\n".join(lines)


def _flat(value: object) -> bytes:
    return bytes(value) if isinstance(value, bytes | memoryview) else str(value).encode()
