"""Very many keys are rotated by one plan, wave by wave; how much memory that takes a worker."""

import time
from functools import partial
from typing import Final

import psycopg

from models.operations import Operation, Selection
from models.operations_desk import Operations

from . import memory, seeds
from .rounds import Figures
from .servers import Servers
from .sizes import Sizes

RATE: Final = 1_000_000.0
"""Keys a second that are allowed: so many that the pace holds nobody up."""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """Megabytes at the peak of a whole operation, beyond what the process holds when idle."""
    with (
        servers.seed(partial(fill, keys=sizes.bulk_keys)) as seed,
        servers.copy(seed) as url,
        servers.runtime(url) as runtime,
    ):
        desk = Operations(runtime.database, runtime.policy, "bench")
        begun = time.perf_counter()
        plan = desk.plan(Selection(everything=True))
        planned = time.perf_counter() - begun
        desk.apply(str(plan.id))
        begun = time.perf_counter()
        peak = memory.peak_over_idle(url, servers.secrets, "operations.advance", bulk_rate=RATE)
        seconds = time.perf_counter() - begun
        check(desk.find(str(plan.id)), sizes.bulk_keys)
    return Figures(
        {"rotation_10k_peak_mb": peak},
        {
            "rotation_10k_planned_s": planned,
            "rotation_10k_keys_per_second": sizes.bulk_keys / seconds,
        },
    )


def fill(connection: psycopg.Connection, keys: int) -> None:
    """One owner with half of the keys, and many with a few each."""
    seeds.begin(connection)
    seeds.add(connection, accounts=1, each=keys // 2)
    seeds.add(connection, first=seeds.BYSTANDERS, accounts=keys // 10, each=5)
    seeds.finish(connection)


def check(plan: Operation, keys: int) -> None:
    """Work that was left undone earns no figure."""
    if (plan.state, plan.issued) != ("completed", keys):
        raise RuntimeError(
            f"{keys} keys were to be rotated; the plan is {plan.state} with {plan.issued} issued"
        )
