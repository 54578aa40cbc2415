"""A broker that fails over to a replica which had fallen behind: entries come back, others go."""

import time
from collections import Counter
from pathlib import Path

import redis

from models.operator import Operator
from tests.chaos.proxy import Proxy
from tests.eventually import eventually
from tests.flows.invariants import assert_invariants
from tests.flows.processes import environment, intake, worker
from tests.worker.secured import own_valkey
from tests.world import World
from worker.app import QUEUE
from worker.embedded.home import Home
from worker.embedded.valkey import HOST

IN = "keyturn:in"
SOON = 45.0


def send(server: redis.Redis, email: str) -> None:
    """What a producer does, and does again where it saw no effect: the same id."""
    server.xadd(IN, {"type": "account.disabled", "account": email, "id": f"{email}-1"})


def test_a_fail_over_to_a_stale_replica_loses_and_doubles_no_effect(
    servers_home: Home, database_url: str, secrets_dir: Path
) -> None:
    """The replica has still what was handled since, and has never had what came since."""
    back, missed, later = (f"{name}@example.com" for name in ("back", "missed", "later"))
    with (
        own_valkey(servers_home) as first,
        own_valkey(servers_home, "--replicaof", f"{HOST} {first}") as second,
        Proxy((HOST, first)).running() as proxy,
        redis.Redis(HOST, first) as primary,
        redis.Redis(HOST, second) as replica,
        Operator(database_url) as operator,
    ):
        world = World(operator.database)
        for email in (back, missed, later):
            world.account(email)

        def held(email: str) -> bool:
            return bool(operator.account(email).held)

        eventually(lambda: replica.info("replication")["master_link_status"] == "up")
        send(primary, back)
        eventually(lambda: replica.xlen(IN) == 1)
        replica.replicaof("NO", "ONE")  # what comes from now on it misses
        env = environment(database_url, f"redis://{HOST}:{proxy.port}/0", secrets_dir)
        with worker(env), intake(env):
            eventually(lambda: held(back), within=SOON)
            send(primary, missed)
            eventually(lambda: held(missed), within=SOON)
            eventually(lambda: primary.xlen(IN) == 0, within=SOON)
            send(primary, later)
            primary.shutdown(nosave=True)
            assert replica.xlen(IN) == 1, "it still has what was handled long ago"
            proxy.lead_to((HOST, second))
            failed_over = time.monotonic()
            eventually(lambda: replica.xlen(IN) == 0, within=SOON)
            send(replica, missed)
            send(replica, later)
            eventually(lambda: held(later), within=SOON)
            assert time.monotonic() - failed_over < 60
            eventually(lambda: replica.xlen(IN) == 0 and not replica.llen(QUEUE), within=SOON)
        assert_invariants(operator)
        with operator.database.begin() as tx:
            rows = tx.rows("SELECT event_id, state FROM keyturn.inbox")
            holds = tx.rows("SELECT account_id FROM keyturn.audit WHERE action = 'hold.placed'")
        assert sorted((row["event_id"], row["state"]) for row in rows) == sorted(
            (f"{email}-1", "done") for email in (back, missed, later)
        )
        assert sorted(Counter(row["account_id"] for row in holds).values()) == [1, 1, 1]
