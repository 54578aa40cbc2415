"""How a worker ends: as soon as its tasks are through, and whatever hangs."""

import time
from typing import Final

import structlog
from celery.apps import worker
from celery.worker import state

from tasks import running

log = structlog.get_logger()

LOOK_EVERY: Final = 0.05  # seconds


class Worker(worker.Worker):  # type: ignore[misc]
    """Celery's worker, which sleeps its whole `worker_soft_shutdown_timeout` for one short task."""

    def wait_for_soft_shutdown(self) -> None:
        """Wait for the tasks that run; at most as long as Celery does."""
        longest = float(self.app.conf.worker_soft_shutdown_timeout)
        running.ending(allowed=longest)
        log.info("worker_ends", tasks=len(state.active_requests), seconds=longest)
        deadline = time.monotonic() + longest
        while state.active_requests and time.monotonic() < deadline:
            time.sleep(LOOK_EVERY)
