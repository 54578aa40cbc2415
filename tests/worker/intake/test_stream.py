"""The way from a stream into the inbox, on a real Valkey and PostgreSQL."""

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from models.base import Database
from tests.eventually import eventually
from tests.worker.intake.streams import (
    IN,
    KEYCLOAK,
    OKTA,
    add,
    done,
    read_by_another,
    running,
    states,
    stored,
)
from tests.worker.site import closed
from tests.world import World
from worker.embedded.postgres import Postgres
from worker.intake import stream as under_test
from worker.intake.stream import GROUP


def test_an_entry_is_stored_then_acked_then_removed(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    add(redis)
    once()
    assert stored(database) == ["1"]
    assert redis.xlen(IN) == 0


def test_the_order_of_the_stream_is_kept_over_batches(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    numbers = list(range(2500))
    pipeline = redis.pipeline(transaction=False)
    for number in numbers:
        pipeline.xadd(IN, {"type": "account.disabled", "account": f"{number}@x.org", "id": number})
    pipeline.execute()
    once()
    assert stored(database) == [str(number) for number in numbers]


def test_the_last_of_one_account_wins_in_the_order_of_the_stream(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    world = World(database)
    world.account()
    _, text = world.key()
    for kind in ("disabled", "enabled", "disabled", "enabled", "disabled"):
        redis.xadd(IN, {"type": f"account.{kind}", "account": "ada@example.com"})
    once()
    world.apply()
    assert world.verify(text).reason == "account_held"
    redis.xadd(IN, {"type": "account.enabled", "account": "ada@example.com"})
    once()
    world.apply()
    assert world.verify(text).valid


def test_nothing_is_acked_while_the_database_is_away(
    redis: "Redis", broker_url: str, database: Database, postgres: Postgres
) -> None:
    with running(broker_url, database):
        add(redis, 0)
        eventually(lambda: done(redis, IN))
        with closed(postgres, database):
            for number in range(1, 51):
                add(redis, number)
            eventually(lambda: pending(redis) > 0)
            assert redis.xlen(IN) == 50
        eventually(lambda: done(redis, IN))
    assert stored(database) == [str(number) for number in range(51)]
    assert set(states(database)) == {"received"}
    assert redis.xlen(IN) == 0


def pending(client: "Redis") -> int:
    answer: Any = client.xpending(IN, GROUP)
    return int(answer["pending"])


def test_own_pending_entries_come_first_after_a_crash(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    redis.xgroup_create(IN, GROUP, id="0", mkstream=True)
    for number in range(6):
        add(redis, number)
    assert read_by_another(redis, 4, consumer="one") == 4  # and died before the commit
    once("one")
    assert stored(database) == [str(number) for number in range(6)]


def test_a_crash_after_the_commit_stores_nothing_twice(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    add(redis, 1)
    redis.xadd(IN, {"type": "account.disabled", "account": "no@id.org"})
    entries: Any = redis.xrange(IN)
    once()
    redis.xgroup_destroy(IN, GROUP)
    for entry, fields in entries:  # as if they had never been acked
        redis.delete(IN)
        redis.xadd(IN, fields, id=entry)
        once()
    assert len(stored(database)) == 2


def test_entries_of_a_dead_consumer_are_taken_over(
    redis: "Redis", broker_url: str, database: Database
) -> None:
    redis.xgroup_create(IN, GROUP, id="0", mkstream=True)
    for number in range(5):
        add(redis, number)
    assert read_by_another(redis, 3) == 3
    with running(broker_url, database, dead_after=0.6):
        eventually(lambda: len(stored(database)) == 5)
        eventually(lambda: done(redis, IN))
    assert sorted(map(str, stored(database))) == ["0", "1", "2", "3", "4"]


def test_a_living_consumer_keeps_its_entries(
    redis: "Redis", database: Database, broker_url: str
) -> None:
    redis.xgroup_create(IN, GROUP, id="0", mkstream=True)
    add(redis, 1)
    assert read_by_another(redis, 1) == 1
    with running(broker_url, database, dead_after=60):
        add(redis, 2)
        eventually(lambda: stored(database) == ["2"])
    assert pending(redis) == 1


def test_two_consumers_share_the_work(
    redis: "Redis", broker_url: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "BATCH", 10)
    with running(broker_url, database, "one"), running(broker_url, database, "two"):
        for number in range(400):
            add(redis, number)
        eventually(lambda: done(redis, IN))
    assert sorted(map(int, map(str, stored(database)))) == list(range(400))


def test_two_processes_of_one_name_store_nothing_twice(
    redis: "Redis", broker_url: str, database: Database
) -> None:
    with running(broker_url, database), running(broker_url, database):
        for number in range(200):
            add(redis, number)
        eventually(lambda: done(redis, IN))
    assert sorted(map(int, map(str, stored(database)))) == list(range(200))


@pytest.mark.parametrize("loss", ["FLUSHALL", "group", "stream"])
def test_a_broker_that_forgets_is_joined_anew(
    redis: "Redis", broker_url: str, database: Database, loss: str
) -> None:
    with running(broker_url, database):
        add(redis, 1)
        eventually(lambda: stored(database) == ["1"])
        if loss == "FLUSHALL":
            redis.flushall()
        elif loss == "group":
            redis.xgroup_destroy(IN, GROUP)
        else:
            redis.delete(IN)
        add(redis, 2)
        eventually(lambda: stored(database) == ["1", "2"])
        eventually(lambda: done(redis, IN))


@pytest.mark.parametrize("consumer", ["one", "dead"], ids=["own", "another's"])
def test_entries_deleted_meanwhile_hold_nothing_up(
    redis: "Redis", broker_url: str, database: Database, consumer: str
) -> None:
    redis.xgroup_create(IN, GROUP, id="0", mkstream=True)
    entries = [add(redis, number) for number in range(4)]
    assert read_by_another(redis, 3, consumer=consumer) == 3
    redis.xdel(IN, entries[0], entries[2])
    with running(broker_url, database, dead_after=0.6):
        eventually(lambda: len(stored(database)) == 2)
        eventually(lambda: done(redis, IN))
    assert sorted(map(str, stored(database))) == ["1", "3"]


def test_the_heartbeat_stops_with_the_database(
    broker_url: str, database: Database, postgres: Postgres
) -> None:
    """The intake says that it is well only in rounds that reach the database."""
    tried: list[int] = []
    beats: list[int] = []

    def beat() -> None:
        tried.append(1)
        with database.begin() as tx:
            beats.append(tx.scalar("SELECT 1"))

    with running(broker_url, database, beat=beat):
        eventually(lambda: beats)
        with closed(postgres, database):
            rounds, before = len(tried), len(beats)
            eventually(lambda: len(tried) > rounds + 2)
            assert len(beats) <= before + 1  # one may have been under way
        eventually(lambda: len(beats) > before + 1)


def test_a_stream_that_cannot_be_read_stops_no_other(
    redis: "Redis", broker_url: str, database: Database
) -> None:
    """Somebody writes another type into a source's key, before the start and in the middle."""
    redis.set(OKTA, "no stream")
    with running(broker_url, database, dead_after=1.5):
        add(redis, 1)
        eventually(lambda: stored(database) == ["1"])
        redis.delete(KEYCLOAK)
        redis.set(KEYCLOAK, "no stream any more")
        add(redis, 2)
        eventually(lambda: stored(database) == ["1", "2"])
        redis.delete(OKTA)
        add(redis, 3, stream=OKTA)
        eventually(lambda: len(stored(database)) == 3)
