"""A broken promise is an alarm; a kept one is silent."""

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from models.base import Database
from models.key_text import Peppers
from models.keyring import Keyring
from models.sealing import Sealer
from tasks import Runtime, flows, run
from tests.world import World
from worker.schedule import schedule
from worker.settings import Settings


@pytest.fixture
def world(database_url: str) -> World:
    return World(Database(database_url))


def alarms(world: World) -> list[Any]:
    """What one run of the flow tells."""
    keyring = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))
    runtime = Runtime(world.database, world.policy, keyring, channels={})
    with capture_logs() as logs:
        changed = run(flows()["upkeep.check_invariants"], runtime)
    found = [line for line in logs if line["event"] == "alarm"]
    assert changed == len(found)
    return found


def test_each_broken_promise_is_an_alarm_with_its_name_and_count(world: World) -> None:
    world.account()
    keys = sorted(str(world.key()[0]) for _ in range(2))
    assert alarms(world) == []
    with world.database.begin() as tx:
        tx.execute("UPDATE keyturn.api_keys SET version = 2, held = true")
    flags, dense = sorted(alarms(world), key=lambda one: str(one["invariant"]), reverse=True)
    assert dense == {
        "event": "alarm",
        "log_level": "error",
        "alarm": "invariant_broken",
        "invariant": "audit_is_dense",
        "count": 2,
        "rows": tuple(keys),
    }
    assert (flags["invariant"], flags["count"]) == ("flags_agree", 2)


def test_it_is_on_the_schedule() -> None:
    settings = Settings(invariants_every="7m")
    rest = schedule(settings)["upkeep.check_invariants"]
    assert timedelta(minutes=6) < rest <= timedelta(minutes=7)
