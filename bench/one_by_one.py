"""The usual way to disable many keys: a Celery task for each."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from . import task_queue
from .celery_app import DISABLE
from .servers import Servers
from .settling import check


@dataclass(frozen=True)
class Disabling:
    """All keys of the account a1@example.com of a seed."""

    servers: Servers
    seed: str
    keys: int
    after: Callable[[str, int], object] = check

    def rate(self) -> float:
        """Keys a second, from the first task published to the last one done."""
        with self.servers.copy(self.seed) as url:
            with psycopg.connect(url) as connection:
                ids = connection.execute(
                    "SELECT k.id::text FROM keyturn.api_keys k JOIN keyturn.accounts a"
                    " ON a.id = k.account_id WHERE a.email = 'a1@example.com' ORDER BY k.id"
                ).fetchall()
            with (
                self.servers.environment(url, broker=1) as settings,
                task_queue.worker(self.servers, settings) as tasks,
            ):
                start = time.perf_counter()
                for (key_id,) in ids:
                    tasks.publish(DISABLE, key_id)
                seconds = tasks.drained() - start
            self.after(url, self.keys)
        return self.keys / seconds
