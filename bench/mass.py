"""One account is to be cut at once while another source disables very many."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from statistics import median, quantiles
from typing import Final

import psycopg
from redis import Redis

from models import Client, Keyring
from models.key_text import digest, mint
from worker.streams import connect

from . import seeds, stack, task_queue
from .events import STREAM, publish
from .rounds import Figures
from .servers import Servers
from .sizes import Sizes

BULK: Final = "keyturn:in:bulk"
_CONFIG: Final = f"""
[sources.native]
provider = "native"
stream = "{STREAM}"
[sources.bulk]
provider = "native"
stream = "{BULK}"
"""
_WAITING: Final = 5000
"""Accounts that can be cut one by one while the mass goes through, at most."""
_LOOK_EVERY: Final = 0.01  # seconds: what this process takes of the two cores, it measures
_MASS_LEFT: Final = """
    SELECT (SELECT count(*) FROM keyturn.accounts WHERE held AND id < %s) < %s
        OR EXISTS (SELECT FROM keyturn.accounts WHERE unsettled)
"""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """Seconds from publishing an event to the first refusal, for events all through the mass."""
    peppers = Keyring.from_directory(servers.secrets).peppers
    texts = [mint("kt").reveal() for _ in range(_WAITING)]
    digests = [digest(text, peppers[peppers.current]) for text in texts]
    with (
        servers.seed(partial(fill, mass=sizes.mass, digests=digests)) as seed,
        servers.copy(seed) as url,
        servers.environment(url, broker=0, config=_CONFIG) as settings,
        stack.running(servers, settings),
        Client(url, secrets_dir=servers.secrets) as client,
        psycopg.connect(url, autocommit=True) as connection,
        connect(settings.stream_url) as redis,
    ):
        urgent = Urgent(client, redis, texts, sizes.urgent_every)
        started = time.perf_counter()
        publish(redis, sizes.mass, stream=BULK)
        published = time.perf_counter() - started
        while mass_left(connection, sizes.mass):
            if time.perf_counter() - started > task_queue.WITHIN:
                raise RuntimeError(f"the mass was not through within {task_queue.WITHIN:.0f} s")
            urgent.go_on(0.5)
        seconds = time.perf_counter() - started
        task_queue.until(urgent.all_refused)
    waits = urgent.waits
    if len(waits) < 2:
        raise RuntimeError("the mass was through before a second urgent event was published")
    return Figures(
        {"deny_p99_under_mass_disable_s": quantiles(waits, n=100, method="inclusive")[-1]},
        {
            "deny_under_mass_p50_s": median(waits),
            "deny_under_mass_max_s": max(waits),
            "deny_under_mass_events": float(len(waits)),
            "mass_published_s": published,
            "mass_disabled_s": seconds,
        },
    )


@dataclass
class Urgent:
    """Events that each cut one account, published at fixed times whatever became of the last."""

    client: Client
    redis: Redis
    texts: Sequence[str]
    every: float
    waits: list[float] = field(default_factory=list)
    _sent: dict[int, float] = field(default_factory=dict)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    _next: float = field(default_factory=time.perf_counter)

    def go_on(self, seconds: float) -> None:
        """Publish what is due and look who is refused, for a while."""
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            if now >= self._next:
                self._publish(next(self._numbers))
                self._next += self.every
            self.all_refused()
            time.sleep(_LOOK_EVERY)

    def all_refused(self) -> bool:
        """Note for every key that is newly refused how long that took."""
        for number, sent in list(self._sent.items()):
            if not self.client.verify(self.texts[number], record=False):
                self.waits.append(time.perf_counter() - sent)
                del self._sent[number]
        return not self._sent

    def _publish(self, number: int) -> None:
        self._sent[number] = time.perf_counter()
        account = f"a{seeds.BYSTANDERS + number}@example.com"
        self.redis.xadd(STREAM, {"type": "account.disabled", "account": account})


def fill(connection: psycopg.Connection, mass: int, digests: list[bytes]) -> None:
    """Accounts with a few keys each for the mass, and with one each to be cut singly."""
    seeds.begin(connection)
    seeds.add(connection, accounts=mass, each=2)
    seeds.add(connection, first=seeds.BYSTANDERS, accounts=len(digests), each=1, digests=digests)
    seeds.finish(connection)


def mass_left(connection: psycopg.Connection, mass: int) -> bool:
    """Whether anything of the mass is still to be applied or settled."""
    first = connection.execute(
        "SELECT id FROM keyturn.accounts WHERE email = %s", [f"a{seeds.BYSTANDERS}@example.com"]
    ).fetchone()
    assert first is not None
    return connection.execute(_MASS_LEFT, [first[0], mass]).fetchone() == (True,)
