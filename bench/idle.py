"""What the schedule's runs cost that find nothing to do: they come every few seconds, for ever."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

import psycopg

from models import outbox
from models.messages import Delivery, Outgoing
from tasks import Runtime, flows

from . import seeds
from .rounds import Figures, interleave, timed
from .servers import Servers
from .sizes import Sizes

SWEEP: Final = "keys.expire_due"
FLOWS: Final = (
    SWEEP,
    "accounts.apply_events",
    "keys.settle",
    "keys.delete_due",
    "rotations.advance",
    "rotations.start_due",
    "upkeep.reseal",
    "keys.follow_compromises",
    "keys.tell_refused",
    "outbox.deliver",
    "notices.plan",
    "upkeep.check_invariants",
)
SETTLED: Final = 12
"""Runs after which the driver and the server keep to one plan: each decides after five."""
RUNS: Final = 1_000
FEWEST: Final = 5
LONG: Final = 3.0
"""A side has at least FEWEST runs; more, up to RUNS, where they take no more seconds than LONG."""


def measure(servers: Servers, sizes: Sizes) -> Figures:
    """A run that finds nothing, with very many keys against few; every flow, the sweep by its bar.

    Both databases stand on one server at once, and have nothing left to write or to clear away.
    Single runs alternate between them: a run takes a fraction of a millisecond, so that twenty of
    one side are over before the other side has its turn, and whoever wants a core in that moment
    makes the difference.
    """
    with ExitStack() as stack:
        sides = {}
        for name, keys in (("few", sizes.few_keys), ("many", sizes.very_many_keys)):
            seed = stack.enter_context(servers.seed(partial(fill, keys=keys)))
            sides[name] = stack.enter_context(_idle(servers, seed))
        slowest = {flow: max(_settled(flow, side) for side in sides.values()) for flow in FLOWS}
        with servers.postgres.connect() as connection:
            connection.execute("CHECKPOINT")
        found = {
            flow: interleave(
                max(FEWEST, min(RUNS, int(LONG / slowest[flow]))),
                {name: partial(seconds_of, flow, side) for name, side in sides.items()},
            )
            for flow in FLOWS
        }
    ratios = {flow: times["many"] / times["few"] for flow, times in found.items()}
    sweep = ratios.pop(SWEEP)
    return Figures(
        {"idle_sweep_1m_vs_10k": sweep},
        {f"idle_{_name(flow)}_1m_vs_10k": ratio for flow, ratio in ratios.items()}
        | {f"idle_{_name(flow)}_1m_ms": times["many"] * 1000 for flow, times in found.items()},
    )


def _name(flow: str) -> str:
    return flow.replace(".", "_")


def _settled(flow: str, runtime: Runtime) -> float:
    """Seconds of a run once the plans are settled, or after LONG seconds."""
    found: list[float] = []
    while len(found) < SETTLED and sum(found) < LONG:
        found.append(seconds_of(flow, runtime))
    return found[-1]


def seconds_of(flow: str, runtime: Runtime) -> float:
    """Seconds of a run's work, without the lease around it: two commits, and they cost the same
    on both sides, so that they would hide what is compared."""
    with timed() as timer:
        changed = flows()[flow].work(runtime)
    if changed:
        raise RuntimeError(f"{flow} was to find nothing, and found {changed}")
    return timer.seconds


@contextmanager
def _idle(servers: Servers, seed: str) -> Iterator[Runtime]:
    """The runtime of a worker on the seed itself: nothing will be changed."""
    channels = {name: _Unused() for name in (outbox.EVENTS, outbox.MAIL)}
    with servers.runtime(servers.postgres.url(seed)) as runtime:
        yield replace(runtime, channels=channels)


class _Unused:
    """A channel for which there is nothing."""

    def send(self, messages: Sequence[Outgoing]) -> Sequence[Delivery]:
        raise RuntimeError(f"{len(messages)} messages were to send")


EACH: Final = 100
_POPULATION: Final = (
    (60, "active", "10 weeks"),
    (20, "active", "3 weeks"),  # their owners know it
    (10, "expired", "-3 weeks"),
    (5, "disabled", "10 weeks"),
    (5, "deleted", "10 weeks"),
)
"""Percent of all keys, their status, and when they end."""
_HOLDS: Final = """
    WITH placed AS (
        INSERT INTO keyturn.holds (id, account_id, source, kind, placed_at)
        SELECT DISTINCT ON (account_id) gen_random_uuid(), account_id, 'native', status,
               now() - interval '30 days'
        FROM keyturn.api_keys WHERE status IN ('disabled', 'deleted')
        RETURNING *
    ), held AS (
        UPDATE keyturn.accounts SET held = true WHERE id IN (SELECT account_id FROM placed)
    )
    INSERT INTO keyturn.audit (at, actor, action, account_id, why)
    SELECT placed_at, 'source:native', 'hold.placed', account_id, 'native/' || kind || ': bench'
    FROM placed
"""
_NOTICES: Final = """
    INSERT INTO keyturn.notices
        (id, key_id, account_id, expires_at, threshold_seconds, state, planned_at)
    SELECT gen_random_uuid(), id, account_id, expires_at, 30 * 86400, 'sent',
           now() - interval '1 week'
    FROM keyturn.api_keys WHERE status = 'active' AND expires_at < now() + interval '30 days'
"""


def fill(connection: psycopg.Connection, keys: int) -> None:
    """A population that has lived: what has ended, was held or deleted is still there."""
    seeds.begin(connection)
    for number, (share, status, ends) in enumerate(_POPULATION):
        seeds.add(
            connection,
            first=number * seeds.BYSTANDERS + 1,
            accounts=max(1, keys * share // 100 // EACH),
            each=EACH,
            status=status,
            ends=ends,
        )
    seeds.finish(connection)
    connection.execute(_HOLDS)
    connection.execute(_NOTICES)
