"""The intake process: it only stores and rings, and does so with all workers down."""

import signal
import socket
import time
from types import FrameType

from models import schedule_runs
from models.base import Database
from models.policy import Policy
from worker import checks, setup
from worker.intake.accept import source
from worker.intake.stream import StreamIntake
from worker.settings import Settings
from worker.streams import connect

JOB = "intake.stream"
BEAT_EVERY = 2.0


def run(settings: Settings) -> None:
    """Receive until SIGTERM or SIGINT. Raises Misconfigured where it could not work at all."""
    checks.schema(settings)
    stop = _Stop()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    database = setup.database(settings, pool_size=2, name="keyturn intake")
    by_stream = {given.stream: source(settings, name) for name, given in settings.sources.items()}
    StreamIntake(
        connect(settings.stream_url),
        database,
        by_stream,
        consumer=f"intake-{socket.gethostname()}",
        beat=_Heartbeat(database, settings.policy()),
    ).run(stop.asked)
    database.close()


class _Stop:
    """Remembers that a signal asked for the end."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def asked(self) -> bool:
        return self._asked


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
        with self._database.begin() as tx:
            fence = schedule_runs.begin(tx, JOB, self._policy, exclusive=False)
            if fence is not None:
                schedule_runs.finish(tx, JOB, fence, done=0)
