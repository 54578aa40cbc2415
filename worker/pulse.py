"""What a worker does beside its tasks: it ticks where beat is silent, and asks whether it hears."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import structlog

from models import schedule_runs
from tasks import Runtime, flows, run
from tasks.running import noted
from worker.schedule import TICK

log = structlog.get_logger()

SILENT_AFTER: Final = 3
"""Ticks that beat may miss before workers tick by themselves."""


class Pulse:
    """A thread that looks every `every` whether beat has ticked, and ticks in its place.

    `listen` is called at each look.
    """

    def __init__(
        self,
        runtime: Callable[[], Runtime],
        every: timedelta,
        listen: Callable[[], object] = lambda: None,
    ) -> None:
        self._runtime = runtime
        self._every = every
        self._listen = listen
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin, in a thread that does not keep the process alive."""
        threading.Thread(target=self._go_on, name="keyturn-pulse", daemon=True).start()

    def stop(self) -> None:
        """End within one interval."""
        self._stop.set()

    def beat(self) -> None:
        """One look."""
        with noted("pulse"):
            self._beat()

    def _beat(self) -> None:
        self._listen()
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
