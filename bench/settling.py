"""Cascade and sweep: the same two sides, our task and one raw statement, over different keys."""

from collections.abc import Callable
from dataclasses import dataclass

import psycopg

from tasks import Runtime, flows, run

from .rounds import interleave, timed
from .servers import Servers


def check(url: str, keys: int) -> None:
    """Raise unless so many keys were settled, audited, and told of in a page."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            """
            SELECT (SELECT count(*) FROM keyturn.api_keys WHERE status <> 'active'),
                   (SELECT count(*) FROM keyturn.audit WHERE version = 2),
                   (SELECT sum(jsonb_array_length(payload->'key_ids'))::int FROM keyturn.outbox)
            """
        ).fetchone()
    if found != (keys, keys, keys):
        raise RuntimeError(f"{keys} keys were to settle; statuses, audit and pages say {found}")


@dataclass(frozen=True)
class Settling:
    """How many keys are to settle, by which task, and the statement that does the same."""

    keys: int
    task: str
    statement: str
    before: Callable[[Runtime], object] = lambda runtime: None
    """What has happened before; not timed, and the same for both sides."""
    after: Callable[[str, int], object] = check
    """Refuses a figure that was not earned."""

    def compare(self, servers: Servers, seed: str, rounds: int) -> dict[str, float]:
        """Keys a second of `ours` and `raw`."""
        return interleave(
            rounds,
            {"ours": lambda: self.ours(servers, seed), "raw": lambda: self.raw(servers, seed)},
        )

    def ours(self, servers: Servers, seed: str) -> float:
        """The task, as a worker runs it."""
        with servers.copy(seed) as url, servers.runtime(url) as runtime:
            self.before(runtime)
            with timed() as timer:
                run(flows()[self.task], runtime)
            self.after(url, self.keys)
        return self.keys / timer.seconds

    def raw(self, servers: Servers, seed: str) -> float:
        """The statement, on a connection that is open."""
        with servers.copy(seed) as url, servers.runtime(url) as runtime:
            self.before(runtime)
            with psycopg.connect(url, autocommit=True) as connection, timed() as timer:
                connection.execute(self.statement, {"page": runtime.policy.page_keys})
            self.after(url, self.keys)
        return self.keys / timer.seconds
