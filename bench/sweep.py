"""Very many keys of many accounts end at once."""

from functools import partial

import psycopg

from . import raw_sql, seeds
from .rounds import Figures
from .servers import Servers
from .settling import Settling
from .sizes import Sizes


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The sweep against one raw statement."""
    with servers.seed(partial(fill, keys=sizes.keys, each=sizes.keys_of_one)) as seed:
        found = sweep(sizes.keys).compare(servers, seed, sizes.rounds)
    return Figures(
        {"sweep_vs_raw_sql": found["ours"] / found["raw"]},
        {
            "sweep_keys_per_second": found["ours"],
            "sweep_raw_sql_keys_per_second": found["raw"],
        },
    )


def sweep(keys: int) -> Settling:
    """All keys that are due."""
    return Settling(keys, "keys.expire_due", raw_sql.EXPIRE)


def fill(connection: psycopg.Connection, keys: int, each: int) -> None:
    """Keys that ended a minute ago, `each` to an account, and as many that end later."""
    accounts = keys // each
    seeds.begin(connection)
    seeds.add(connection, accounts=accounts, each=each, ends="-1 minute")
    seeds.add(connection, first=seeds.BYSTANDERS, accounts=accounts, each=each)
    seeds.finish(connection)
