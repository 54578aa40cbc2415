"""One account with very many keys is disabled."""

from functools import partial

import psycopg

from models import holds
from models.base import Tx
from tasks import Runtime

from . import memory, one_by_one, raw_sql, seeds
from .rounds import Figures, interleave
from .servers import Servers
from .settling import Settling
from .sizes import Sizes


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """Settling against one raw statement, and against a Celery task for each key."""
    with servers.seed(partial(fill, keys=sizes.keys)) as seed:
        found = cascade(sizes.keys).compare(servers, seed, sizes.rounds)
        with servers.copy(seed) as url, servers.runtime(url) as runtime:
            hold(runtime)
            peak = memory.peak_over_idle(url, servers.secrets, "keys.settle")
    with servers.seed(partial(fill, keys=sizes.task_keys)) as seed:
        tasks = one_by_one.Disabling(servers, seed, sizes.task_keys)
        found |= interleave(sizes.slow_rounds, {"tasks": tasks.rate})
    return Figures(
        {
            "cascade_vs_raw_sql": found["ours"] / found["raw"],
            "cascade_vs_task_per_key": found["ours"] / found["tasks"],
        },
        {
            "cascade_keys_per_second": found["ours"],
            "cascade_raw_sql_keys_per_second": found["raw"],
            "task_per_key_keys_per_second": found["tasks"],
            "cascade_peak_mb_over_idle": peak,
        },
    )


def cascade(keys: int) -> Settling:
    """The account's hold stands already: that is what cuts access, and takes one commit."""
    return Settling(keys, "keys.settle", raw_sql.DISABLE, before=hold)


def fill(connection: psycopg.Connection, keys: int) -> None:
    """One account with all the keys, and as many keys of others."""
    seeds.begin(connection)
    seeds.add(connection, accounts=1, each=keys)
    seeds.add(connection, first=seeds.BYSTANDERS, accounts=max(1, keys // 100), each=100)
    seeds.finish(connection)


def hold(runtime: Runtime) -> None:
    """Disable the account."""

    def place(tx: Tx) -> None:
        account_id = tx.scalar("SELECT id FROM keyturn.accounts WHERE email = 'a1@example.com'")
        holds.lock_accounts(tx, [account_id])
        cause = holds.Cause(source=holds.OPERATOR, kind="disabled", actor="bench")
        holds.place(tx, holds.on_account(account_id), cause, runtime.policy)

    runtime.database.run(place)
