"""The intake process: it only stores and rings, and does so with all workers down."""

import signal
import socket
import threading
import time
from datetime import timedelta
from types import FrameType

import structlog

from models import schedule_runs
from models.base import Database
from models.policy import Policy
from tasks.running import noted
from worker import checks, setup
from worker.intake.accept import source
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
    database = setup.database(settings, pool_size=2, name="keyturn intake")
    beat = _Heartbeat(database, settings.policy())
    if settings.has_streams:
        _streams(settings, database, beat).run(stop.asked)
    else:
        _wait(beat, stop)
    database.close()


def _streams(settings: Settings, database: Database, beat: "_Heartbeat") -> StreamIntake:
    by_stream = {given.stream: source(settings, name) for name, given in settings.sources.items()}
    consumer = f"intake-{socket.gethostname()}"
    return StreamIntake(connect(settings.stream_url), database, by_stream, consumer, beat)


def _wait(beat: "_Heartbeat", stop: "_Stop") -> None:
    """Receive nothing, and say so: this process counts as well, since it lacks nothing."""
    log.warning(
        "stream_intake_off",
        why="the broker is RabbitMQ, which has no streams of Redis",
        works="the Celery task account.event, for producers of your own",
        mend="to receive provider messages, set KEYTURN_STREAM_URL to a Redis or Valkey",
    )
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
    """Writes down every few seconds that this process receives."""

    def __init__(self, database: Database, policy: Policy) -> None:
        self._database = database
        self._policy = policy
        self._last = 0.0

    def __call__(self) -> None:
        if time.monotonic() - self._last < BEAT_EVERY:
            return
        self._last = time.monotonic()
        with noted(JOB), self._database.begin() as tx:
            fence = schedule_runs.begin(tx, JOB, self._policy, exclusive=False)
            if fence is not None:
                schedule_runs.finish(tx, JOB, fence, done=0)
