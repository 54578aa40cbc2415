"""The end of a process that is stuck: whoever supervises it starts another one."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from tasks import running

log = structlog.get_logger()

STUCK: Final = os.EX_SOFTWARE
LOOK_EVERY: Final = 1.0  # seconds
TELL_WITHIN: Final = 5.0  # seconds


class Watchdog:
    """A thread that looks at what this process has under way, and at nothing outside of it.

    Statements have a timeout, but the server keeps it: where that falls silent on an open
    connection, the driver waits for its answer for ever, and on threads Celery's time limits do
    nothing. So where a piece of work goes on past `stuck_after`, the process ends. What it had
    claimed is found again when its lease ends, and what it had read is read again. So does a
    process that no longer hears its broker.
    """

    def __init__(
        self,
        stuck_after: timedelta,
        end: Callable[[int], object] = os._exit,
        deaf: Callable[[], bool] = lambda: False,
    ) -> None:
        self._stuck_after = stuck_after.total_seconds()
        self._end = end
        self._deaf = deaf

    def start(self) -> None:
        """Begin, in a thread that does not keep the process alive."""
        threading.Thread(target=self._go_on, name="keyturn-watchdog", daemon=True).start()

    def look(self) -> None:
        """One look."""
        longest = running.longest()
        if longest and longest[1] > self._stuck_after:
            _tell(alarm="worker_stuck", flow=longest[0], seconds=round(longest[1]))
            self._end(STUCK)
        elif self._deaf():
            _tell(alarm="worker_deaf", why="it reads nothing from its broker")
            self._end(STUCK)

    def _go_on(self) -> None:
        pause = threading.Event()
        while not pause.wait(LOOK_EVERY):
            self.look()


def _tell(**facts: object) -> None:
    """Log an alarm, or not: where nobody reads what this process writes, that would be its end."""
    telling = threading.Thread(target=lambda: log.error("alarm", **facts), daemon=True)
    telling.start()
    telling.join(TELL_WITHIN)
