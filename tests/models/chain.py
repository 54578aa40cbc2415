"""An audit and its seals, on a database that the test's superuser may do anything to."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg

from models import audit, audit_seal, audit_verify
from models.audit_verify import Anchor, Verified
from models.base import Database
from models.policy import Policy
from tests.eventually import eventually
from worker.embedded.postgres import Postgres

DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "audit.md"
WRITE: Final = (
    "INSERT INTO keyturn.audit (at, actor, action) VALUES (now(), 'test', %s) RETURNING id"
)
POLICY: Final = Policy(seal_batch=3)


@dataclass
class Chain:
    """A database with an audit; `server` is its superuser, who commits each statement."""

    database: Database
    server: psycopg.Connection
    url: str

    def write(self, *actions: str) -> None:
        """An entry each, each in a transaction of its own."""
        for action in actions:
            self.database.run(partial(audit.record, actor="test", action=action))

    def seal(self, policy: Policy = POLICY) -> int:
        """What the flow does; returns how many entries were sealed."""
        sealed = 0
        while not (done := self.database.run(lambda tx: audit_seal.step(tx, policy))).finished:
            sealed += done.changed
        return sealed

    def seal_all(self) -> None:
        """Seal once nothing is in the way: the server's own work is, for a moment."""
        running = (
            b"SELECT FROM pg_current_snapshot() s WHERE pg_snapshot_xmin(s) <> pg_snapshot_xmax(s)"
        )
        eventually(lambda: self.server.execute(running).rowcount == 0, every=0.01)
        self.seal()
        assert self.verify().waiting == 0

    def verify(self, anchor: Anchor | None = None) -> Verified:
        return audit_verify.verify(self.database, anchor)

    def problems(self, anchor: Anchor | None = None) -> list[tuple[str, int | None]]:
        """The codes of what is wrong, each with the seal that shows it."""
        return [(one.code, one.seal) for one in self.verify(anchor).problems]

    def anchor(self) -> Anchor:
        return self.database.run(audit_verify.anchor)

    def seals(self) -> list[dict[str, Any]]:
        query = "SELECT number, entries, first_id, last_id FROM keyturn.audit_seals ORDER BY number"
        with self.database.begin() as tx:
            return [dict(row) for row in tx.rows(query)]

    def tamper(self, statements: str) -> None:
        """A superuser does something; each of its statements finds something."""
        for statement in statements.split(";"):
            assert self.server.execute(statement.encode()).rowcount > 0, statement


@contextmanager
def opened(url: str) -> Iterator[Chain]:
    """The audit of a migrated database."""
    database = Database(url)
    with psycopg.connect(url, autocommit=True) as server:
        yield Chain(database, server, url)
    database.close()


def create(postgres: Postgres, template: str, name: str) -> str:
    """A database for all tests of a module; returns its address."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return postgres.url(name)


@contextmanager
def emptied(url: str) -> Iterator[Chain]:
    """Its audit, without what the test before left there."""
    with opened(url) as chain:
        chain.server.execute(b"TRUNCATE keyturn.audit, keyturn.audit_seals RESTART IDENTITY")
        yield chain


def program() -> str:
    """The program of docs/audit.md that recomputes seals without Keyturn."""
    [code] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text("utf-8"), re.DOTALL)
    return str(code)


def recomputed(chain: Chain, place: Path) -> subprocess.CompletedProcess[str]:
    """What that program says of an export."""
    (place / "recompute.py").write_text(program(), "utf-8")
    for name, table, order in (
        ("entries", "audit", "transaction_id, id"),
        ("seals", "audit_seals", "number"),
    ):
        query = f"SELECT CAST(to_json(t) AS text) FROM keyturn.{table} t ORDER BY {order}"
        lines = [line for (line,) in chain.server.execute(query.encode())]
        (place / f"{name}.jsonl").write_text("\n".join(lines), "utf-8")
    command = [sys.executable, "-I", "recompute.py", "entries.jsonl", "seals.jsonl"]
    return subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
