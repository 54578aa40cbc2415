"""The processes beside the servers: worker, beat and intake, started again when they die."""

import signal
import sys
import time
from collections.abc import Sequence
from typing import Final

from .home import Home
from .process import Patience, PidFile, Running, end_recorded, spawn

NAMES: Final = ("worker", "beat", "intake")
# An idle worker ends at once. A busy one may be cut off: its rows are found again.
STOP: Final[Patience] = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 1.0))
FIRST_PAUSE: Final = 0.5  # seconds before a dead child is started again; doubles
LONGEST_PAUSE: Final = 5.0
STEADY_AFTER: Final = 30.0  # seconds of life after which a death counts as the first again


class Child:
    """One process that is wanted for as long as its supervisor runs."""

    def __init__(self, home: Home, name: str, command: Sequence[str]) -> None:
        self.name = name
        self.command = command
        self.pid_file = _pid_file(home, name)
        self.log = home.own_directory("log") / f"{name}.log"
        self.running: Running | None = None
        self._pause = FIRST_PAUSE
        self._started = 0.0
        self._start_at: float | None = None

    def start(self) -> None:
        self.running = spawn(self.command, pid_file=self.pid_file, log=self.log)
        self._started = time.monotonic()
        self._start_at = None

    def alive(self) -> bool:
        return self.running is not None and self.running.alive()

    def tend(self) -> str | None:
        """Start the child again, a pause after its death; returns what to tell when it died."""
        now = time.monotonic()
        if self.running is None or self.running.alive():
            return None
        if self._start_at is None:
            return self._plan_start(self.running, now)
        if now >= self._start_at:
            self.start()
        return None

    def _plan_start(self, running: Running, now: float) -> str:
        steady = now - self._started > STEADY_AFTER
        self._pause = FIRST_PAUSE if steady else min(self._pause * 2, LONGEST_PAUSE)
        self._start_at = now + self._pause
        return (
            f"{self.name} ended ({_ending(running.popen.returncode)}) and starts again in "
            f"{self._pause:g} s; the end of {self.log}:\n{running.last_words()}"
        )


def make_children(home: Home) -> list[Child]:
    """Worker, beat and intake, not started yet. Their settings come with the environment."""
    celery = [sys.executable, "-m", "celery", "--app", "worker.main"]
    worker = [*celery, "worker", "--pool", "threads", "--without-gossip", "--without-mingle"]
    worker += ["--hostname", f"keyturn-{home.mark}@%h"]
    beat = [*celery, "beat", "--schedule", str(home.path / "beat-schedule"), "--pidfile", ""]
    intake = [sys.executable, "-m", "worker.cli", "intake"]
    return [
        Child(home, name, command)
        for name, command in zip(NAMES, (worker, beat, intake), strict=True)
    ]


def end_orphans(home: Home) -> None:
    """End the children of a supervisor that was killed. Raises EmbeddedFailed."""
    end_recorded([_pid_file(home, name) for name in NAMES], STOP)


def stop_children(children: Sequence[Child]) -> None:
    """End all of them within four seconds. Raises EmbeddedFailed."""
    end_recorded([child.pid_file for child in children], STOP)
    for child in children:
        if child.running:
            child.running.popen.wait()


def _pid_file(home: Home, name: str) -> PidFile:
    return PidFile(home.own_directory("pids") / f"{name}.json")


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else f"signal {-code}: {signal.strsignal(-code)}"
