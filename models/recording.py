"""Recording that keys are used, behind the answers: never waited for, never able to fail them."""

import atexit
import logging
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from uuid import UUID

from .base import Database, Tx

_log = logging.getLogger(__name__)

FLUSH_EVERY = timedelta(seconds=1)
MOST_WAITING = 50_000
"""Uses kept in memory while the database does not take them; beyond, they are dropped, counted."""

_RECORD = """
WITH seen AS (
    SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:firsts AS timestamptz[]),
        CAST(:lasts AS timestamptz[]), CAST(:counts AS bigint[]), CAST(:ips AS inet[]))
        AS s (key_id, first, last, count, ip)
), free AS (
    SELECT u.key_id FROM keyturn.key_uses u JOIN seen s USING (key_id)
    ORDER BY u.key_id FOR UPDATE OF u SKIP LOCKED
)
UPDATE keyturn.key_uses u SET
    first_used_at = least(u.first_used_at, s.first),
    last_used_at = greatest(u.last_used_at, s.last),
    uses = u.uses + s.count,
    last_ip = CASE WHEN u.last_used_at IS NULL OR s.last >= u.last_used_at
              THEN coalesce(s.ip, u.last_ip) ELSE u.last_ip END
FROM seen s JOIN free USING (key_id) WHERE u.key_id = s.key_id
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

    Returns how many keys' rows were written.
    """
    first: dict[UUID, datetime] = {}
    last: dict[UUID, Use] = {}
    counts: dict[UUID, int] = {}
    for use in uses:
        counts[use.key_id] = counts.get(use.key_id, 0) + use.count
        if use.key_id not in last or use.at >= last[use.key_id].at:
            last[use.key_id] = use
        if use.key_id not in first or use.at < first[use.key_id]:
            first[use.key_id] = use.at
    ids = list(last)
    return tx.count(
        _RECORD,
        ids=ids,
        firsts=[first[key_id] for key_id in ids],
        lasts=[last[key_id].at for key_id in ids],
        counts=[counts[key_id] for key_id in ids],
        ips=[_address(last[key_id].ip) for key_id in ids],
    )


def _address(ip: str | None) -> str | None:
    """The address if it is one: what a caller passes must not fail everybody's recording."""
    try:
        return None if ip is None else str(ip_address(ip.strip()))
    except ValueError:
        return None


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
        self._waiting: dict[UUID, Use] = {}
        self._written: dict[UUID, datetime] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._process = 0
        self._failing = False
        self.dropped = 0

    def add(self, use: Use) -> None:
        """Remember a use; costs a dictionary entry."""
        written = self._written.get(use.key_id)
        if written is not None and use.at - written < self._interval:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.dropped += 1
            return
        self._waiting[use.key_id] = use
        if self._process != os.getpid():
            self._start()

    def flush(self) -> None:
        """Write what waits now. Never raises: recording is never why something fails."""
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            if not waiting:
                return
            try:
                with self._database.begin() as tx:
                    record(tx, waiting.values())
            except Exception as error:
                if not self._failing:
                    reason = type(error).__name__
                    _log.warning("uses are not being recorded (%s); they are kept", reason)
                self._failing = True
                self._waiting = waiting | self._waiting
                return
            self._failing = False
            if len(self._written) > MOST_WAITING:
                self._written.clear()
            self._written.update((use.key_id, use.at) for use in waiting.values())

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
