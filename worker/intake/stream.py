"""Account events from Redis or Valkey streams: read by group, committed, rung for, then acked."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import structlog
from redis import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.typing import KeyT

from models.base import Database, is_server_trouble
from models.inbox import Received
from tasks.running import noted
from worker.intake.accept import Fields, Producer, accept, read_entry
from worker.intake.verification import KeysUnavailable

log = structlog.get_logger()

GROUP = "keyturn"
BATCH = 1000
BLOCK_MS = 1000
DEAD_AFTER = 30.0
"""Seconds: a consumer that has sat on an entry for this long is taken for dead."""

Entry = tuple[bytes, Fields | None]
Read = dict[str, list[Entry]]
"""Entries by their stream."""


class StreamIntake:
    """Reads the streams of all sources under one consumer name.

    Delivery is at least once: an entry is acked, and removed, after its row has committed. What
    comes twice has the same entry id, so it is stored once.
    """

    def __init__(
        self,
        redis: Redis,
        database: Database,
        sources: Mapping[str, Producer],
        consumer: str,
        beat: Callable[[], None] = lambda: None,
        dead_after: float = DEAD_AFTER,
    ) -> None:
        """`sources` by the stream that each writes to; `beat` is called in every round."""
        self._redis = redis
        self._database = database
        self._sources = sources
        self._consumer = consumer
        self._beat = beat
        self._dead_after = dead_after
        self._looked_for_dead = 0.0
        self._open: list[str] = []
        """The streams that can be read; one that cannot must not stop the others."""

    def run(self, stopped: Callable[[], bool]) -> None:
        """Read until `stopped`. Servers that do not answer are waited for; nothing is lost."""
        pause = 0.1
        recovering = True
        while not stopped():
            try:
                if recovering:
                    self._join()
                    self._read_own()
                    recovering = False
                self._beat()
                self._read_dead()
                self._read_new()
                pause = 0.1
            except Exception as error:
                recovering = True
                log.warning("intake_waits", error=type(error).__name__, seconds=pause)
                if not isinstance(error, RedisError) and not is_server_trouble(error):
                    log.exception("alarm", alarm="intake_failed")
                time.sleep(pause)
                pause = min(pause * 2, 5.0)

    def _join(self) -> None:
        self._open = [stream for stream in self._sources if self._joined(stream)]

    def _joined(self, stream: str) -> bool:
        try:
            self._redis.xgroup_create(stream, GROUP, id="0", mkstream=True)
        except ResponseError as error:
            wrong_type = "WRONGTYPE" in str(error)
            if wrong_type or isinstance(error, NoPermissionError):
                why = "its key holds something else" if wrong_type else "this user may not read it"
                log.error("alarm", alarm="stream_unusable", stream=stream, why=why)
                return False
            if "BUSYGROUP" not in str(error):
                raise
        return True

    def _read_own(self) -> None:
        """What this consumer had read before it died, or before a server failed."""
        for stream in self._open:
            after: bytes | str = "0"
            while entries := self._read({stream: after}).get(stream):
                self._take(stream, entries)
                after = entries[-1][0]

    def _read_dead(self) -> None:
        """What another consumer had read and never finished."""
        if time.monotonic() - self._looked_for_dead < self._dead_after / 3:
            return
        self._looked_for_dead = time.monotonic()
        if len(self._open) < len(self._sources):
            self._join()
        for stream in self._open:
            start: bytes | str = "0-0"
            idle = int(self._dead_after * 1000)
            while True:
                answer = self._redis.xautoclaim(
                    stream, GROUP, self._consumer, idle, start, count=BATCH
                )
                start, entries = answer[0], answer[1]
                if entries:
                    self._take(stream, entries)
                if start in (b"0-0", "0-0"):
                    break

    def _read_new(self) -> None:
        if not self._open:
            time.sleep(BLOCK_MS / 1000)
            return
        for stream, entries in self._read(dict.fromkeys(self._open, ">"), BLOCK_MS).items():
            self._take(stream, entries)

    def _read(self, after: Mapping[str, bytes | str], block: int | None = None) -> Read:
        streams: dict[KeyT, int | bytes | str | memoryview] = dict(after.items())
        answer = self._redis.xreadgroup(GROUP, self._consumer, streams, BATCH, block)
        return {_name(stream): list(_flat(entries)) for stream, entries in _pairs(answer)}

    def _take(self, stream: str, entries: list[Entry]) -> None:
        source = self._sources[stream]
        received, ids = _read_entries(source, entries)
        if received:
            batches = iter(received)
            while batch := list(islice(batches, BATCH)):
                with noted("intake.accept"):
                    counts = accept(self._database, source, batch)
                log.info("intake", transport="stream", source=source.name, **counts)
        if not ids:
            return
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xack(stream, GROUP, *ids)
        pipeline.xdel(stream, *ids)
        pipeline.execute()


def _read_entries(source: Producer, entries: Iterable[Entry]) -> tuple[list[Received], list[bytes]]:
    """The members of the entries, and the ids of those entries that are done with.

    One whose key cannot be had yet stays pending: as if its consumer were dead, it is claimed anew
    after a while.
    """
    received: list[Received] = []
    done = []
    for entry_id, fields in entries:
        try:
            if fields:  # none: removed from the stream after it was read
                received += read_entry(source, entry_id.decode(), fields)
            done.append(entry_id)
        except KeysUnavailable:
            continue
    return received, done


def _pairs(answer: object) -> Iterator[tuple[bytes, list[object]]]:
    """The streams of an answer, whichever protocol the server speaks."""
    if isinstance(answer, dict):
        yield from answer.items()
    elif isinstance(answer, list):
        yield from answer


def _flat(entries: list[object]) -> Iterator[Entry]:
    for entry in entries:
        if isinstance(entry, list):  # RESP3 wraps a stream's entries once more
            yield from _flat(entry)
        else:
            yield entry  # type: ignore[misc]


def _name(stream: bytes | str) -> str:
    return stream.decode() if isinstance(stream, bytes) else stream
