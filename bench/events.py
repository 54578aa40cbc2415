"""Accounts are disabled by events, through everything that `make run` starts."""

import time
from functools import partial

import psycopg
from redis import Redis

from worker.app import QUEUE
from worker.streams import connect

from . import seeds, stack, task_queue
from .celery_app import NOTHING
from .rounds import Figures, interleave
from .servers import Servers
from .settling import check
from .sizes import Sizes

STREAM = "keyturn:in"
_LEFT = (
    "SELECT count(*) < %s FROM keyturn.inbox WHERE state = 'done'",
    "SELECT EXISTS (SELECT FROM keyturn.accounts WHERE unsettled)",
    "SELECT EXISTS (SELECT FROM keyturn.api_keys WHERE status = 'active')",
)
"""Each is asked once the one before it says no: asking takes time from those who work."""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """Events a second against the no-op tasks a second that the same broker and worker can do."""
    with servers.seed(partial(fill, accounts=sizes.accounts, each=sizes.keys_an_account)) as seed:
        found = interleave(
            sizes.slow_rounds,
            {
                "ours": lambda: ours(servers, seed, sizes.accounts, sizes.keys_an_account),
                "noop": lambda: noop(servers, seed, sizes.noop_tasks),
            },
        )
    return Figures(
        {"events_vs_celery_noop": found["ours"] / found["noop"]},
        {
            "events_per_second": found["ours"],
            "event_keys_per_second": found["ours"] * sizes.keys_an_account,
            "celery_noop_per_second": found["noop"],
        },
    )


def fill(connection: psycopg.Connection, accounts: int, each: int) -> None:
    """Accounts with a few active keys each."""
    seeds.begin(connection)
    seeds.add(connection, accounts=accounts, each=each)
    seeds.finish(connection)


def ours(servers: Servers, seed: str, accounts: int, each: int) -> float:
    """Events a second, from the first one published to the last key settled, audited and paged."""
    with servers.copy(seed) as url, servers.environment(url, broker=0) as settings:
        with (
            stack.running(servers, settings),
            psycopg.connect(url, autocommit=True) as connection,
            connect(settings.stream_url) as redis,
        ):
            start = time.perf_counter()
            publish(redis, accounts)
            end = task_queue.until(lambda: _all_done(connection, accounts), every=0.05)
        check(url, accounts * each)
    return accounts / (end - start)


def publish(
    redis: Redis,
    accounts: int,
    *,
    stream: str = STREAM,
    kind: str = "account.disabled",
    batch: str = "event",
) -> None:
    """One native event for each account, a thousand to a round trip; `batch` begins their ids."""
    for first in range(1, accounts + 1, 1000):
        pipeline = redis.pipeline(transaction=False)
        for number in range(first, min(first + 1000, accounts + 1)):
            pipeline.xadd(
                stream,
                {
                    "type": kind,
                    "account": f"a{number}@example.com",
                    "id": f"{batch}-{number}",
                },
            )
        pipeline.execute()


def _all_done(connection: psycopg.Connection, events: int) -> bool:
    received, unsettled, active = _LEFT
    return not any(
        connection.execute(question, values).fetchone() == (True,)
        for question, values in ((received, [events]), (unsettled, []), (active, []))
    )


def noop(servers: Servers, seed: str, tasks: int) -> float:
    """Tasks a second that do nothing, all of them published before the first one starts."""
    with (
        servers.copy(seed) as url,
        servers.environment(url, broker=1) as settings,
        task_queue.worker(servers, settings) as worker,
    ):
        aside = worker.aside(servers.valkey.url(2))
        for _ in range(tasks):
            aside.publish(NOTHING)
        start = time.perf_counter()
        aside.redis.move(QUEUE, 1)
        end = worker.drained()
    return tasks / (end - start)
