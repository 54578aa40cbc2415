"""Entries put into a stream, and what the intake makes of them in the database."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from redis import Redis

from models import inbox
from models.base import Database
from models.inbox import InboxEvent
from tests.worker.intake.streams import SOURCES, Quiet
from tests.world import World
from worker.intake.stream import StreamIntake

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(usual: int) -> int:
    """How many examples a search looks at: FUZZ_EXAMPLES, or what a quick run has time for."""
    return EXAMPLES or usual


@dataclass
class Inlet:
    """A Valkey, an intake, and the database behind it."""

    redis: "Redis"
    database: Database
    world: World = field(init=False)

    def __post_init__(self) -> None:
        self.world = World(self.database)

    def take(self, stream: str, *entries: Mapping[Any, Any]) -> list[InboxEvent]:
        """The rows that these entries became, the oldest first. Nothing stays in the stream."""
        with self.database.begin() as tx:
            before = tx.scalar("SELECT coalesce(max(id), 0) FROM keyturn.inbox")
        for entry in entries:
            self.redis.xadd(stream, dict(entry))
        intake = StreamIntake(self.redis, self.database, SOURCES, "one")
        quiet, deadline = Quiet(self.redis), time.monotonic() + 20
        intake.run(lambda: quiet() or time.monotonic() > deadline)
        left = self.redis.xlen(stream)
        self.redis.xtrim(stream, maxlen=0)
        assert left == 0, "the intake does not get over this entry"
        with self.database.begin() as tx:
            rows = inbox.listed(tx, limit=100_000)
        return [row for row in reversed(rows) if row.id > before]

    def kept(self, row: InboxEvent) -> bytes:
        """The message that a rejected row keeps."""
        with self.database.begin() as tx:
            body = tx.scalar("SELECT body FROM keyturn.inbox WHERE id = :id", id=row.id)
        return bytes(body)


def outcome(rows: Sequence[InboxEvent]) -> list[str]:
    """The state of each row; of a rejected or parked one also the code of the reason."""
    return [
        f"{row.state}: {(row.reason or '').partition(':')[0]}"
        if row.state in ("rejected", "parked")
        else row.state
        for row in rows
    ]
