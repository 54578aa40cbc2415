"""Claiming outgoing messages while very many settled ones are still kept."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from statistics import median
from typing import Final

import psycopg

from models import outbox
from models.base import Database
from models.messages import Delivery
from models.policy import Policy

from .rounds import Figures, interleave, timed
from .servers import Servers
from .sizes import Sizes

CLAIMS: Final = 6
"""Batches of which a round takes the median."""
CHURNED: Final = 10
"""One in so many settled messages has gone its whole way since the last vacuum: each leaves two
dead rows, and at a fifth of the table the server's autovacuum would begin."""
_INSERT: Final = """
    INSERT INTO keyturn.outbox (id, channel, kind, account_id, payload, created_at, due_at,
        attempts, fence, state, settled_at)
    SELECT gen_random_uuid(), 'events', 'key.disabled', gen_random_uuid(),
        jsonb_build_object('account_id', gen_random_uuid(),
                           'key_ids', jsonb_build_array(gen_random_uuid(), gen_random_uuid())),
        at, at, {waiting}
    FROM (
        SELECT now() - interval '20 days' * (1 - n / CAST(%(rows)s AS float8)) AS at
        FROM generate_series(1, %(rows)s) AS n
    ) AS numbered
"""
_SETTLED: Final = _INSERT.format(waiting="1, 1, 'sent', at")
_WAITING: Final = _INSERT.format(waiting="0, 0, 'waiting', NULL")


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """The time of a claim behind very many settled rows / behind few."""
    rows = {"few": sizes.few_settled, "many": sizes.very_many_settled}
    with ExitStack() as stack:
        sides = {name: stack.enter_context(_behind(servers, kept)) for name, kept in rows.items()}
        found = _claims(sides, sizes.rounds)
        for name, side in sides.items():
            stack.enter_context(_old_transaction(side))
            churn(side, rows[name] // CHURNED)
        pinned = _claims(sides, sizes.rounds)
    return Figures(
        {"outbox_1m_vs_10k": found["many"] / found["few"]},
        {
            "outbox_claim_behind_10k_ms": found["few"] * 1000,
            "outbox_claim_behind_1m_ms": found["many"] * 1000,
            "outbox_1m_vs_10k_by_an_old_transaction": pinned["many"] / pinned["few"],
            "outbox_claim_behind_1m_by_an_old_transaction_ms": pinned["many"] * 1000,
        },
    )


@contextmanager
def _behind(servers: Servers, settled: int) -> Iterator[Database]:
    """A database with so many settled messages, and what the last of them left behind."""
    with servers.seed(partial(fill, settled=settled)) as seed:
        database = Database(servers.postgres.url(seed))
        churn(database, settled // CHURNED)
        yield database
        database.close()


@contextmanager
def _old_transaction(database: Database) -> Iterator[None]:
    """A reader that has begun and does not end: no dead row can go for as long as it is there."""
    with database.begin() as tx:
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        tx.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        tx.execute("SELECT FROM keyturn.outbox LIMIT 1")
        yield


def _claims(sides: dict[str, Database], rounds: int) -> dict[str, float]:
    return interleave(rounds, {name: partial(_claim, side) for name, side in sides.items()})


def _claim(database: Database) -> float:
    """Seconds of one claim of a whole batch, with its commit."""
    batch = Policy().deliver_batch
    _add(database, batch * CLAIMS)
    found = []
    for _ in range(CLAIMS):
        with timed() as timer:
            leased = _lease(database)
        if len(leased.messages) != batch:
            raise RuntimeError(f"{batch} messages were to claim, and {len(leased.messages)} were")
        found.append(timer.seconds)
    return median(found)


def churn(database: Database, messages: int) -> None:
    """Messages that are claimed and sent as the worker does it."""
    _add(database, messages)
    while (leased := _lease(database)).messages:
        sent = [Delivery(id=message.id, state="sent") for message in leased.messages]
        database.run(partial(outbox.settle, leased=leased, deliveries=sent))


def _lease(database: Database) -> outbox.Leased:
    return database.run(lambda tx: outbox.lease(tx, outbox.EVENTS, Policy()))


def _add(database: Database, messages: int) -> None:
    with database.connect_autocommit() as connection:
        connection.execute(_WAITING, {"rows": messages})


def fill(connection: psycopg.Connection, settled: int) -> None:
    """Messages of the last three weeks, all sent; the server does not vacuum by itself."""
    connection.execute(_SETTLED, {"rows": settled})
    connection.execute("ALTER TABLE keyturn.outbox SET (autovacuum_enabled = off)")
