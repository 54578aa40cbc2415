"""How long a disabled account's key still works: from publishing the event to the first no."""

from collections.abc import Callable
from functools import partial
from statistics import median, quantiles

import psycopg
from redis import Redis

from models import Client, Keyring
from models.key_text import digest, mint
from worker.settings import Settings
from worker.streams import connect

from . import seeds, stack, task_queue
from .events import STREAM
from .rounds import Figures, timed
from .servers import Servers
from .sizes import Sizes

_RESOLUTION = 0.0002  # seconds between two looks: a tighter loop would take a core from the others
_IDLE = """
    SELECT NOT EXISTS (SELECT FROM keyturn.inbox WHERE state <> 'done')
       AND NOT EXISTS (SELECT FROM keyturn.accounts WHERE unsettled)
       AND NOT EXISTS (SELECT FROM keyturn.outbox WHERE state = 'waiting')
"""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The time to the first refusal against what the way to it must cost at least."""
    peppers = Keyring.from_directory(servers.secrets).peppers
    texts = [mint("kt").reveal() for _ in range(sizes.denials + 1)]
    digests = [digest(text, peppers[peppers.current]) for text in texts]
    with (
        servers.seed(partial(fill, digests=digests)) as seed,
        servers.copy(seed) as url,
        servers.environment(url, broker=0) as settings,
    ):
        waits = denials(servers, settings, texts)[1:]  # the first finds them all just started
        floor = least(settings, sizes.denials * 10)
    return Figures(
        {"deny_latency_vs_floor": median(waits) / floor},
        {
            "deny_latency_p50_ms": median(waits) * 1000,
            "deny_latency_p95_ms": quantiles(waits, n=20)[-1] * 1000,
            "deny_latency_floor_ms": floor * 1000,
        },
    )


def fill(connection: psycopg.Connection, digests: list[bytes]) -> None:
    """Accounts with a key each."""
    seeds.begin(connection)
    seeds.add(connection, accounts=len(digests), each=1, digests=digests)
    seeds.finish(connection)


def denials(servers: Servers, settings: Settings, texts: list[str]) -> list[float]:
    """Seconds from publishing to the first no, for each key; all is idle before the next."""
    waits = []
    with (
        stack.running(servers, settings),
        Client(settings.database_url, secrets_dir=servers.secrets) as client,
        psycopg.connect(settings.database_url, autocommit=True) as connection,
        connect(settings.stream_url) as redis,
    ):
        for number, text in enumerate(texts, start=1):
            if not client.verify(text, record=False):
                raise RuntimeError("a key that works was refused")
            with timed() as timer:
                _publish(redis, number)
                task_queue.until(partial(_refused, client, text), every=_RESOLUTION)
            waits.append(timer.seconds)
            task_queue.until(partial(_idle, connection))
    return waits


def _publish(redis: Redis, number: int) -> None:
    redis.xadd(STREAM, {"type": "account.disabled", "account": f"a{number}@example.com"})


def _refused(client: Client, text: str) -> bool:
    return not client.verify(text, record=False)


def _idle(connection: psycopg.Connection) -> bool:
    return connection.execute(_IDLE).fetchone() == (True,)


def least(settings: Settings, times: int) -> float:
    """Seconds of two commits and two round trips to the broker, each at its median."""
    with (
        psycopg.connect(settings.database_url, autocommit=True) as connection,
        connect(settings.stream_url) as redis,
    ):
        connection.execute("CREATE TABLE keyturn.bench_commits (at timestamptz)")
        commit = partial(connection.execute, "INSERT INTO keyturn.bench_commits SELECT now()")
        ask = partial(redis.xadd, "bench", {"type": "account.disabled", "account": "a@example.com"})
        return 2 * _median(commit, times) + 2 * _median(ask, times)


def _median(work: Callable[[], object], times: int) -> float:
    found = []
    for _ in range(times):
        with timed() as timer:
            work()
        found.append(timer.seconds)
    return median(found)
