"""A Celery worker beside the measuring process, and when its queue is empty."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from celery import Celery
from redis import Redis

from worker.app import QUEUE
from worker.embedded.children import STOP
from worker.embedded.process import PidFile, spawn
from worker.settings import Settings
from worker.streams import connect

from .celery_app import NOTHING, make
from .servers import Servers

WITHIN = 120.0
"""Seconds after which a measure is given up."""


class Queue:
    """The queue of one running worker."""

    def __init__(self, app: Celery, redis: Redis) -> None:
        self.app = app
        self.redis = redis

    def publish(self, task: str, *args: str) -> None:
        self.app.send_task(task, args)

    def aside(self, url: str) -> "Queue":
        """A queue of the same name that nobody consumes, on another database of the broker."""
        app = make()
        app.conf.broker_url = url
        redis = connect(url)
        redis.flushdb()
        return Queue(app, redis)

    def drained(self) -> float:
        """Wait until every task is done; returns when that was, by the monotonic clock.

        A task is in neither place for a moment, between queue and `unacked`: only a queue that
        stays empty is.
        """
        deadline = time.perf_counter() + WITHIN
        since: float | None = None
        while (now := time.perf_counter()) < deadline:
            if self.redis.llen(QUEUE) or self.redis.hlen("unacked"):
                since = None
            elif since is None:
                since = now
            elif now - since > 0.1:
                return since
            time.sleep(0.002)
        raise RuntimeError(f"the worker did not finish its tasks within {WITHIN:.0f} s")


@contextmanager
def worker(servers: Servers, settings: Settings) -> Iterator[Queue]:
    """A worker with the options of `keyturn up`, ready; it ends with the block."""
    command = [sys.executable, "-m", "celery", "--app", "bench.celery_app", "worker"]
    command += ["--pool", "threads", "--without-gossip", "--without-mingle"]
    process = spawn(
        [*command, "--hostname", "bench@%h"],
        pid_file=PidFile(servers.home.own_directory("pids") / "bench.json"),
        log=servers.home.own_directory("log") / "bench.log",
    )
    try:
        with connect(settings.broker_url) as redis:
            queue = Queue(make(), redis)
            queue.publish(NOTHING)
            queue.drained()
            yield queue
    finally:
        process.stop(STOP)


def until(condition: Callable[[], bool], every: float = 0.02) -> float:
    """Wait for a condition; returns when it held, by the monotonic clock."""
    deadline = time.perf_counter() + WITHIN
    while time.perf_counter() < deadline:
        if condition():
            return time.perf_counter()
        time.sleep(every)
    raise RuntimeError(f"a measure did not come to its end within {WITHIN:.0f} s")
