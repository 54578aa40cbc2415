"""Whether the clocks can be believed: nothing is retired, deleted or purged while they cannot."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from models.base import Database

MOST = timedelta(seconds=60)


@dataclass
class ClockGuard:
    """Compares clocks that have no reason to differ (rule 3.4).

    The database's clock must go on as this process's monotonic one does, and must agree with the
    clock of the broker where that tells the time. A jump keeps the guard suspicious until the
    process is started anew: a person has looked at it by then.
    """

    broker_time: Callable[[], datetime | None] = lambda: None
    monotonic: Callable[[], float] = time.monotonic
    _first: tuple[float, datetime] | None = None

    def suspect(self, database: Database) -> str | None:
        """Why the clocks are suspect, or None."""
        with database.begin() as tx:
            now: datetime = tx.scalar("SELECT clock_timestamp()")
        at = self.monotonic()
        if self._first is None:
            self._first = (at, now)
        began, then = self._first
        jumped = now - then - timedelta(seconds=at - began)
        if abs(jumped) > MOST:
            return f"the database's clock jumped by {jumped.total_seconds():.0f} s"
        broker = self.broker_time()
        if broker is not None and abs(apart := now.astimezone(UTC) - broker) > MOST:
            return f"database and broker differ by {apart.total_seconds():.0f} s"
        return None
