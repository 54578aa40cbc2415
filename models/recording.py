"""Recording that keys are used, behind the answers: never waited for, never able to fail them."""

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from uuid import UUID

from .base import Database, Tx

_log = logging.getLogger(__name__)

FLUSH_EVERY = timedelta(seconds=1)
MOST_WAITING = 50_000
"""Uses kept in memory while the database does not take them; beyond, they are dropped, counted."""

MOST_REMEMBERED = 200_000
"""Keys of which a process remembers that their use needs no writing for a while."""

# The uses come as one text for each column: a list costs the driver ten times as much, in a
# process that has requests to serve.
_RECORD = """
WITH seen AS (
    SELECT key_id, least(min(at), :now) AS first, least(max(at), :now) AS last,
           sum(count) AS count,
           (array_agg(ip ORDER BY at DESC))[1] AS ip
    FROM unnest(
        CAST(string_to_array(:ids, ',') AS uuid[]),
        CAST(string_to_array(:times, ',') AS timestamptz[]),
        CAST(string_to_array(:counts, ',') AS bigint[]),
        CAST(string_to_array(:ips, ',', '') AS inet[])) AS s (key_id, at, count, ip)
    GROUP BY key_id
), free AS (
    SELECT u.ctid AS place, seen.* FROM keyturn.key_uses u JOIN seen USING (key_id)
    ORDER BY u.key_id FOR UPDATE OF u SKIP LOCKED
)
UPDATE keyturn.key_uses u SET
    first_used_at = least(u.first_used_at, free.first),
    last_used_at = greatest(u.last_used_at, free.last),
    uses = u.uses + free.count,
    last_ip = CASE WHEN u.last_used_at IS NULL OR free.last >= u.last_used_at
              THEN coalesce(free.ip, u.last_ip) ELSE u.last_ip END
FROM free WHERE u.ctid = ANY(ARRAY(SELECT place FROM free)) AND u.ctid = free.place
"""


@dataclass(frozen=True, slots=True)
class Use:
    """Uses of one key: the last at `at`, a time of the database's clock (UTC)."""

    key_id: UUID
    at: datetime
    ip: str | None = None
    count: int = 1


def record(tx: Tx, uses: Iterable[Use]) -> int:
    """Write uses down; a row that somebody else is writing just now is passed over.

    A use in the future (a gateway whose clock is ahead) counts as one of now: it would make the key
    look in use for as long.
    Returns how many keys' rows were written.
    """
    seen = list(uses)
    return tx.count(
        _RECORD,
        ids=",".join([use.key_id.hex for use in seen]),
        times=",".join([use.at.isoformat() for use in seen]),
        counts=",".join([str(use.count) for use in seen]),
        ips=",".join([_address(use.ip) if use.ip else "" for use in seen]),
    )


@lru_cache(maxsize=4096)
def _address(ip: str) -> str:
    """The address if it is one, or nothing: what a caller passes must not fail the others' uses.

    Without the zone of a link-local address, which PostgreSQL does not take.
    """
    try:
        return str(ip_address(ip.strip())).partition("%")[0]
    except ValueError:
        return ""


class UseRecorder:
    """Collects uses and writes them once a second from a thread of its own.

    A key is written at most once in `interval`, so a recorded last use may be that much behind.
    A lost use (a crash, a database that does not answer) only makes a key look quieter for a
    while; rotation waits far longer than that before it believes in quiet.
    """

    def __init__(self, database: Database, interval: timedelta) -> None:
        self._database = database
        self._interval = interval
        self._lock = threading.Lock()
        self._waiting: deque[Use] = deque()
        self._noted: dict[int, datetime] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0
        self.dropped = 0

    def add(self, use: Use) -> None:
        """Remember a use; costs a dictionary entry."""
        key = use.key_id.int  # its hash is quicker than the UUID's
        noted = self._noted.get(key)
        if noted is not None and use.at - noted < self._interval:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        if len(self._noted) >= MOST_REMEMBERED:
            self._noted.clear()
        self._noted[key] = use.at
        self._waiting.append(use)
        if self._process != os.getpid():
            self._start()

    def flush(self) -> None:
        """Write what waits now. Never raises: recording is never why something fails."""
        with self._lock:
            # One by one, as others go on adding.
            uses = [self._waiting.popleft() for _ in range(len(self._waiting))]
            if not uses:
                return
            try:
                with self._database.begin() as tx:
                    record(tx, uses)
            except Exception:
                _log.warning("uses were not recorded; they are kept for the next time")
                self._waiting.extendleft(reversed(uses))

    def close(self) -> None:
        """Write what waits and end the thread."""
        thread, self._thread = self._thread, None
        self._wake.set()
        if thread is not None and self._process == os.getpid():
            thread.join(timeout=5)
        self.flush()
        atexit.unregister(self.close)

    def _start(self) -> None:
        """Begin recording in this process: a thread does not survive a fork."""
        with self._lock:
            if self._process == os.getpid():
                return
            self._process = os.getpid()
            self._wake = threading.Event()
            self._thread = threading.Thread(target=self._run, name="keyturn-uses", daemon=True)
            self._thread.start()
            atexit.register(self.close)

    def _run(self) -> None:
        wake = self._wake
        while not wake.wait(FLUSH_EVERY.total_seconds()):
            self.flush()
