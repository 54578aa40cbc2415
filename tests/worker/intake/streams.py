"""Streams with entries in them, and the intake that reads them."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from models import inbox
from models.base import Database
from tests.flows.stack import ROOT
from worker.intake.accept import Producer
from worker.intake.stream import GROUP, StreamIntake
from worker.streams import connect

IN = "keyturn:in"
OKTA = "keyturn:in:okta"
KEYCLOAK = "keyturn:in:keycloak"
SOURCES = {
    IN: Producer("native", "native"),
    OKTA: Producer("okta", "okta"),
    KEYCLOAK: Producer("keycloak", "keycloak"),
}
SAMPLES = ROOT / "tests" / "fixtures" / "events"


class Quiet:
    """Says stop once every stream has been read to its end, and nothing of it is pending."""

    def __init__(self, client: "Redis") -> None:
        self._client = client

    def __call__(self) -> bool:
        return all(done(self._client, name) for name in SOURCES)


def done(client: "Redis", name: str) -> bool:
    """Whether the group has read all of a stream, and has acked all that it read."""
    if not client.exists(name):
        return False
    groups: Any = client.xinfo_groups(name)
    stream: Any = client.xinfo_stream(name)
    return bool(groups) and all(
        not group["pending"] and group["last-delivered-id"] == stream["last-generated-id"]
        for group in groups
    )


@contextmanager
def running(url: str, database: Database, consumer: str = "one", **more: Any) -> Iterator[None]:
    """An intake in a thread of its own."""
    stop = threading.Event()
    with connect(url) as client:
        intake = StreamIntake(client, database, SOURCES, consumer, **more)
        thread = threading.Thread(target=intake.run, args=(stop.is_set,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
            assert not thread.is_alive()


def add(client: "Redis", number: int = 1, *, stream: str = IN, **more: Any) -> bytes:
    """A native event of an account of its own."""
    fields: dict[Any, Any] = {"type": "account.disabled", "account": f"a{number}@example.com"}
    entry: Any = client.xadd(stream, fields | {"id": number} | more)
    return bytes(entry)


def stored(database: Database) -> list[str | None]:
    """The producers' ids, in the order in which the events came in."""
    with database.begin() as tx:
        rows = tx.execute("SELECT event_id FROM keyturn.inbox ORDER BY received_at, id")
        return list(rows.scalars())


def states(database: Database) -> Counter[str]:
    with database.begin() as tx:
        return Counter(one.state for one in inbox.listed(tx, limit=100_000))


def reasons(database: Database) -> list[str]:
    with database.begin() as tx:
        return [f"{one.reason}" for one in reversed(inbox.listed(tx, state="rejected"))]


def read_by_another(client: "Redis", count: int = 10, consumer: str = "dead") -> int:
    """Read entries as a consumer that then dies; says how many."""
    client.xreadgroup(GROUP, consumer, {IN: ">"}, count=count)
    found: Any = client.xpending_range(IN, GROUP, "-", "+", count, consumer)
    return len(found)
