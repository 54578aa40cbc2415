"""The intake process: it only stores and rings, and does so with all workers down."""

import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from types import FrameType

import structlog

from models import schedule_runs
from models.base import Database
from models.errors import Misconfigured
from models.policy import Policy
from tasks.running import noted
from worker import checks, setup
from worker.intake.accept import Producer, source
from worker.intake.amqp import AmqpIntake
from worker.intake.amqp_queues import Queue
from worker.intake.stream import StreamIntake
from worker.settings import Settings
from worker.streams import connect
from worker.watchdog import Watchdog

log = structlog.get_logger()

JOB = "intake.stream"
BEAT_EVERY = 2.0
STATEMENTS = 4
"""Statements of a batch that may all take as long as one may, before it counts as stuck."""
RING = timedelta(seconds=20)
"""What a ring after it may take beside that, where the broker does not answer."""


def run(settings: Settings) -> None:
    """Receive until SIGTERM or SIGINT. Raises Misconfigured where it could not work at all."""
    Watchdog(STATEMENTS * settings.statement_timeout + RING).start()
    with noted("intake.start"):
        checks.schema(settings)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    database = setup.database(settings, pool_size=4, name="keyturn intake")
    beat = _Heartbeat(database, settings.policy())
    transports = _transports(settings, database, beat)
    if not transports:
        transports = [lambda stopped: _wait(beat.part(), stop)]
    threads = [threading.Thread(target=one, args=(stop.asked,)) for one in transports[1:]]
    for thread in threads:
        thread.start()
    transports[0](stop.asked)
    for thread in threads:
        thread.join()
    database.close()


Transport = Callable[[Callable[[], bool]], None]
"""Receives until what it is given says to stop."""


def _transports(settings: Settings, database: Database, beat: "_Heartbeat") -> list[Transport]:
    """Those by which the sources of the settings publish, each for a thread of its own."""
    found: list[Transport] = []
    usable = usable_sources(settings)
    streams = {
        given.stream: name for name, given in settings.sources.items() if given.stream is not None
    }
    if streams and settings.has_streams:
        by_stream = {stream: usable[name] for stream, name in streams.items()}
        consumer = f"intake-{socket.gethostname()}"
        connection = connect(settings.stream_url)
        found.append(StreamIntake(connection, database, by_stream, consumer, beat.part()).run)
    elif streams:
        _tell_of_streams(list(streams.values()))
    queues = [
        Queue(usable[name], given.exchange, given.routing_keys)
        for name, given in settings.sources.items()
        if given.exchange is not None
    ]
    if queues:
        found.append(AmqpIntake(settings.amqp_url, database, queues, beat.part()).run)
    return found


def usable_sources(settings: Settings) -> dict[str, Producer]:
    """Those that something can be received of. Misconfigured names all that cannot be used."""
    found: dict[str, Producer] = {}
    faults: list[str] = []
    for name, given in settings.sources.items():
        if given.exchange is None and not settings.has_streams:
            continue
        try:
            found[name] = source(settings, name)
        except Misconfigured as error:
            faults.append(str(error))
    if faults:
        raise Misconfigured("\n".join(faults))
    return found


def _tell_of_streams(sources: list[str]) -> None:
    """Say which sources nothing can be received of; without them this process counts as well."""
    log.warning(
        "stream_intake_off",
        sources=sources,
        why="the broker is RabbitMQ, which has no streams of Redis",
        works="the Celery task account.event, for producers of your own; and sources with an "
        "`exchange` in place of `stream`",
        mend="to receive provider messages, give their sources an exchange, or set "
        "KEYTURN_STREAM_URL to a Redis or Valkey",
    )


def _wait(beat: Callable[[], None], stop: "_Stop") -> None:
    """Receive nothing: nothing is lacking."""
    while not stop.asked():
        try:
            beat()
        except Exception as error:  # the database is away; nothing is lost meanwhile
            log.warning("intake_waits", error=type(error).__name__, seconds=BEAT_EVERY)
        stop.wait(BEAT_EVERY)


class _Stop:
    """Remembers that a signal asked for the end."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._asked.set()

    def asked(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> None:
        self._asked.wait(seconds)


class _Heartbeat:
    """Writes down every few seconds that this process receives, by all of its transports."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self._last = 0.0
        self._rounds: list[bool] = []
        self._lock = threading.Lock()

    def part(self) -> Callable[[], None]:
        """What one transport calls in each of its rounds; one that is stuck stops the heartbeat."""
        number = len(self._rounds)
        self._rounds.append(False)
        return lambda: self._round(number)

    def _round(self, number: int) -> None:
        with self._lock:
            self._rounds[number] = True
            if not all(self._rounds) or time.monotonic() - self._last < BEAT_EVERY:
                return
            self._last = time.monotonic()
            self._rounds = [False] * len(self._rounds)
        with noted(JOB), self._database.begin() as tx:
            fence = schedule_runs.begin(tx, JOB, self._policy, exclusive=False)
            if fence is not None:
                schedule_runs.finish(tx, JOB, fence, done=0)
