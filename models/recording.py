"""Recording that keys are used, behind the answers: never waited for, never able to fail them."""

import atexit
import logging
import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from uuid import UUID

from .base import Database, Tx
from .errors import Refused
from .forks import begins_anew

_log = logging.getLogger(__name__)

FLUSH_EVERY = timedelta(seconds=1)
MOST_WAITING = 50_000
"""Uses kept in memory while the database does not take them; beyond, they are dropped, counted."""

MOST_REMEMBERED = 200_000
"""Keys of which a process remembers that their use needs no writing for a while."""

LONGEST_REPORT = 5_000
"""Uses of one transaction of a report: its rows are locked for some ten milliseconds."""

MOST_COUNTED = 1_000_000_000
"""Uses that one member of a report may stand for."""

# The uses come as one text for each column: a list costs the driver ten times as much, in a
# process that has requests to serve.
_GIVEN = """
    SELECT * FROM unnest(
        CAST(string_to_array(:ids, ',') AS uuid[]),
        CAST(string_to_array(:times, ',') AS timestamptz[]),
        CAST(string_to_array(:counts, ',') AS bigint[]),
        CAST(string_to_array(:ips, ',', '') AS inet[])
    ) WITH ORDINALITY AS s (key_id, at, count, ip, place)
"""
# Who reports may name keys that there are not, and times before a key was made.
_KNOWN = f"""
    SELECT g.key_id, greatest(g.at, k.created_at) AS at, g.count, g.ip, g.place
    FROM ({_GIVEN}) g JOIN keyturn.api_keys k ON k.id = g.key_id
"""
_FREE = """
WITH given AS ({given}), seen AS (
    SELECT key_id, least(min(at), :now) AS first, least(max(at), :now) AS last,
           sum(count) AS count,
           (array_agg(ip ORDER BY at DESC, place))[1] AS ip
    FROM given GROUP BY key_id
), free AS (
    SELECT u.ctid AS place, seen.* FROM keyturn.key_uses u JOIN seen USING (key_id)
    ORDER BY u.key_id FOR UPDATE OF u {busy}
)
"""
_USED = """
UPDATE keyturn.key_uses u SET
    first_used_at = least(u.first_used_at, free.first),
    last_used_at = greatest(u.last_used_at, free.last),
    uses = u.uses + free.count,
    last_ip = CASE WHEN u.last_used_at IS NULL OR free.last >= u.last_used_at
              THEN coalesce(free.ip, u.last_ip) ELSE u.last_ip END
FROM free WHERE u.ctid = ANY(ARRAY(SELECT place FROM free)) AND u.ctid = free.place
"""
_REFUSED = """
UPDATE keyturn.key_uses u SET
    refused_at = greatest(u.refused_at, free.last),
    refused_uses = u.refused_uses + free.count,
    refused_ip = CASE WHEN u.refused_at IS NULL OR free.last >= u.refused_at
                 THEN coalesce(free.ip, u.refused_ip) ELSE u.refused_ip END
FROM free WHERE u.ctid = ANY(ARRAY(SELECT place FROM free)) AND u.ctid = free.place
"""
_IN_PASSING = _FREE.format(given=_GIVEN, busy="SKIP LOCKED")
_IN_TURN = _FREE.format(given=_KNOWN, busy="")  # nobody's request waits for a report
_RECORD, _RECORD_REFUSED = f"{_IN_PASSING} {_USED}", f"{_IN_PASSING} {_REFUSED}"
_REPORT, _REPORT_REFUSED = (
    f"""
    {_IN_TURN}, written AS ({WRITE} RETURNING 1)
    SELECT (SELECT count(*) FROM written) AS keys, ARRAY(SELECT key_id FROM seen) AS known
    """
    for WRITE in (_USED, _REFUSED)
)


@dataclass(frozen=True, slots=True)
class Use:
    """Uses of one key: the last at `at`, a time of the database's clock (UTC).

    `refused`: it was tried, and refused since the key was stopped.
    """

    key_id: UUID
    at: datetime
    ip: str | None = None
    count: int = 1
    refused: bool = False


@dataclass(frozen=True)
class Rejected:
    """A member of a report that was not recorded: the how-manieth it is, from 0, and why."""

    position: int
    code: str
    message: str


@dataclass(frozen=True)
class Reported:
    """What became of a report: how many keys were written, and which members were not."""

    keys: int
    rejected: tuple[Rejected, ...] = ()


def record(tx: Tx, uses: Iterable[Use]) -> int:
    """Write uses down; a row that somebody else is writing just now is passed over.

    A use in the future (a gateway whose clock is ahead) counts as one of now: it would make the key
    look in use for as long.
    Returns how many keys' rows were written.
    """
    return sum(
        tx.count(_RECORD_REFUSED if refused else _RECORD, **_columns(seen))
        for refused, seen in _by_statement(uses)
    )


def report(tx: Tx, uses: Sequence[Use]) -> Reported:
    """Write down what a gateway has counted: as `record`, but each row in its turn.

    Each member is looked at by itself: one that cannot be (`key_id_invalid`, `key_unknown`,
    `time_invalid`, `count_invalid`) is said to be, and stops no other. A late report never takes a
    newer use away; a time before the key was made (a clock that is behind) is that of its making,
    for a successor must not look confirmed before it was issued. The same report twice leaves the
    times as they are; its counts are added twice.
    """
    good, rejected = _checked(uses)
    keys, known = 0, set[UUID]()
    for refused, seen in _by_statement(good.values()):
        done = tx.row(_REPORT_REFUSED if refused else _REPORT, **_columns(seen))
        assert done is not None
        keys += done["keys"]
        known.update(done["known"])
    rejected += [
        Rejected(position, "key_unknown", f"there is no key {use.key_id}")
        for position, use in good.items()
        if use.key_id not in known
    ]
    return Reported(keys, tuple(sorted(rejected, key=lambda one: one.position)))


def _checked(uses: Sequence[Use]) -> tuple[dict[int, Use], list[Rejected]]:
    good: dict[int, Use] = {}
    rejected = []
    for position, use in enumerate(uses):
        try:
            good[position] = _fit(use)
        except Refused as fault:
            rejected.append(Rejected(position, fault.code, fault.message))
    return good, rejected


def _fit(use: Use) -> Use:
    """A member of a report as it is recorded; what it is made of comes from another program."""
    try:
        key_id = use.key_id if isinstance(use.key_id, UUID) else UUID(use.key_id)
    except (TypeError, ValueError, AttributeError):
        raise Refused("key_id_invalid", "a use names its key by the key's id") from None
    try:
        at = use.at.astimezone(UTC) if use.at.tzinfo else None
    except (AttributeError, OverflowError):
        at = None
    if at is None:
        raise Refused("time_invalid", "the time of a use is a datetime with a time zone, like UTC")
    if type(use.count) is not int or not 1 <= use.count <= MOST_COUNTED:
        raise Refused("count_invalid", f"the count of uses is a number from 1 to {MOST_COUNTED}")
    return replace(use, key_id=key_id, at=at)


def _by_statement(uses: Iterable[Use]) -> Iterator[tuple[bool, list[Use]]]:
    """Those that were refused and those that were not: each go by a statement of their own."""
    members = list(uses)
    for refused in (False, True):
        if seen := [use for use in members if bool(use.refused) is refused]:
            yield refused, seen


def _columns(seen: Sequence[Use]) -> dict[str, str]:
    return {
        "ids": ",".join([use.key_id.hex for use in seen]),
        "times": ",".join([use.at.isoformat() for use in seen]),
        "counts": ",".join([str(use.count) for use in seen]),
        "ips": ",".join([_address(use.ip) if use.ip else "" for use in seen]),
    }


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

    A key is written at most once in `interval`, its refused uses too, so a recorded last use may be
    that much behind.
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
        begins_anew(self)

    def forget_parent(self) -> None:
        """See models.forks. What waits is the parent's, which writes it."""
        self._lock = threading.Lock()
        self._waiting = deque()

    def add(self, use: Use) -> None:
        """Remember a use; costs a dictionary entry."""
        key = use.key_id.int  # its hash is quicker than the UUID's
        if use.refused:
            key = -key
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
