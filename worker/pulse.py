"""What a worker does beside its tasks: it ticks where beat is silent, and ends when it is stuck."""

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from models import schedule_runs
from tasks import Runtime, flows, run, running
from worker.schedule import TICK

log = structlog.get_logger()

SILENT_AFTER: Final = 3
"""Ticks that beat may miss before workers tick by themselves."""

STUCK: Final = os.EX_SOFTWARE


class Pulse:
    """A thread that looks every `every` at beat and at this process's own runs.

    On threads Celery's time limits do nothing. Every run is bounded by timeouts of statements and
    sockets; where one goes on past `stuck_after` all the same, the process ends. Whoever supervises
    it starts another one, and its rows are found again when their lease ends.
    """

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        every: timedelta,
        stuck_after: timedelta,
        end: Callable[[int], object] = os._exit,
    ) -> None:
        self._runtime = runtime
        self._every = every
        self._stuck_after = stuck_after
        self._end = end
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, in a thread that does not keep the process alive."""
        threading.Thread(target=self._go_on, name="keyturn-pulse", daemon=True).start()

    def stop(self) -> None:
        """End within one interval."""
        self._stop.set()

    def beat(self) -> None:
        """One look."""
        longest = running.longest()
        if longest and longest[1] > self._stuck_after.total_seconds():
            log.error("alarm", alarm="worker_stuck", flow=longest[0], seconds=round(longest[1]))
            self._end(STUCK)
        given = self._runtime()
        silent = {TICK: self._every * SILENT_AFTER}
        if given.database.run(lambda tx: schedule_runs.due(tx, silent)):
            log.warning("beat_is_silent", mend="start `celery -A worker.main beat`")
            run(flows()[TICK], given)

    def _go_on(self) -> None:
        while not self._stop.wait(self._every.total_seconds()):
            try:
                self.beat()
            except Exception as error:  # the database is away: look again at the next tick
                log.warning("pulse_failed", error=type(error).__name__)
