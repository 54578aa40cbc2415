"""The doorbell: a Celery message without arguments that says that a flow has work."""

from collections.abc import Callable

import structlog

from models import schedule_runs
from models.base import Database

log = structlog.get_logger()


class Bell:
    """Rings for flows, at most one ring outstanding for each.

    A ring that fails, is lost, doubled or forged changes nothing: due rows are found again by the
    schedule. So ringing never raises.
    """

    def __init__(self, database: Database, publish: Callable[[str], None]) -> None:
        self._database = database
        self._publish = publish

    def __call__(self, flows: set[str]) -> None:
        """Ring for those of `flows` for which no ring is outstanding."""
        try:
            # Not through Database.begin's own doorbell: marking a ring rings for nothing.
            due = self._database.run(lambda tx: schedule_runs.mark_rung(tx, flows))
            for name in due:
                self._publish(name)
        except Exception as error:
            log.warning("ring_failed", flows=sorted(flows), error=type(error).__name__)
