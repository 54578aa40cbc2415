"""The tests' own servers and waits: what the others rely on."""

import psycopg
import pytest
import redis
from kombu import Connection

from tests.eventually import eventually
from tests.servers import need


def test_eventually_asks_until_it_is_true() -> None:
    answers = iter([None, 0, "yes"])
    assert eventually(lambda: next(answers), every=0) == "yes"


def test_eventually_fails_with_what_it_saw_last() -> None:
    with pytest.raises(AssertionError, match=r"not within 0\.01 s; last seen: \[\]"):
        eventually(list[int], within=0.01)


def test_eventually_takes_an_error_for_not_yet() -> None:
    def refuse() -> bool:
        raise ConnectionError("refused")

    with pytest.raises(AssertionError, match=r"last seen: ConnectionError\(.refused.\)"):
        eventually(refuse, within=0.01)


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_a_missing_server_skips_at_home_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="needs MQ: install it"):
        need("MQ", False, "install it")
    need("MQ", True, "install it")


def test_each_database_is_fresh_and_migrated(database_url: str, empty_database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM keyturn.api_keys").fetchone() == (0,)
    with psycopg.connect(empty_database_url) as connection:
        found = connection.execute("SELECT to_regnamespace('keyturn')").fetchone()
    assert found == (None,)


@pytest.mark.parametrize("turn", [1, 2])
def test_the_broker_is_empty_for_each(broker_url: str, turn: int) -> None:
    with redis.Redis.from_url(broker_url) as client:
        assert client.dbsize() == 0
        client.set("left over", turn)


def test_rabbitmq_carries_a_message(rabbitmq_url: str) -> None:
    with Connection(rabbitmq_url) as connection, connection.SimpleQueue("one") as queue:
        queue.put({"number": 7})
        message = queue.get(timeout=10)
        message.ack()
    assert message.payload == {"number": 7}
