"""What worker and intake hold in memory after many events, against what they held after few."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import psycopg

from worker.embedded.process import PidFile
from worker.streams import connect

from . import events, memory, stack, task_queue
from .rounds import Figures
from .servers import Servers
from .sizes import Sizes

PROCESSES: Final = ("worker", "intake")
_KINDS: Final = ("account.disabled", "account.enabled")
_LEFT: Final = """
    SELECT (SELECT count(*) FROM keyturn.inbox WHERE state IN ('done', 'stale')) < %s
        OR EXISTS (SELECT FROM keyturn.accounts WHERE unsettled)
        OR EXISTS (SELECT FROM keyturn.outbox WHERE state = 'waiting')
"""
_LOOKS: Final = 5


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The larger growth of the two: megabytes after all events / after the first few."""
    accounts = sizes.few_events
    with (
        servers.seed(partial(events.fill, accounts=accounts, each=1)) as seed,
        servers.copy(seed) as url,
        servers.environment(url, broker=0) as settings,
        stack.running(servers, settings),
        psycopg.connect(url, autocommit=True) as connection,
        connect(settings.stream_url) as redis,
    ):
        begun = resident(servers)
        few = begun
        for turn in range(sizes.many_events // accounts):
            events.publish(redis, accounts, kind=_KINDS[turn % len(_KINDS)], batch=f"turn-{turn}")
            task_queue.until(partial(_done, connection, accounts * (turn + 1)), every=0.1)
            if turn == 0:
                few = resident(servers)
        many = resident(servers)
    return Figures(
        {"rss_100k_vs_10k": max(many[name] / few[name] for name in PROCESSES)},
        {f"{name}_mb_at_start": begun[name] for name in PROCESSES}
        | {f"{name}_mb_after_10k_events": few[name] for name in PROCESSES}
        | {f"{name}_mb_after_100k_events": many[name] for name in PROCESSES},
    )


def _done(connection: psycopg.Connection, so_many: int) -> bool:
    return connection.execute(_LEFT, [so_many]).fetchone() == (False,)


def resident(servers: Servers) -> dict[str, float]:
    """Megabytes of each process, the median of a few looks while they are idle."""
    return {name: _idle(partial(_megabytes, servers.home.path, name)) for name in PROCESSES}


def _idle(look: Callable[[], float]) -> float:
    found = []
    for _ in range(_LOOKS):
        time.sleep(0.1)
        found.append(look())
    return median(found)


def _megabytes(home: Path, name: str) -> float:
    identity = PidFile(home / "pids" / f"{name}.json").read()
    if identity is None:
        raise RuntimeError(f"the {name} process does not run")
    return memory.resident(identity.pid)
