"""What comes in entries of a stream, good and bad, on a real Valkey and PostgreSQL."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from models import inbox
from models.base import Database
from tests.worker.intake.streams import (
    IN,
    KEYCLOAK,
    OKTA,
    SAMPLES,
    add,
    reasons,
    states,
    stored,
)

BAD: dict[str, dict[Any, Any]] = {
    "no fields of ours": {"hello": "world", "answer": "42"},
    "not UTF-8": {"type": "account.disabled", "account": b"\xff\xfe"},
    "a name that is not UTF-8": {b"\xff": b"\x00", b"\x00": b"\xff", "x": "1"},
    "unknown type": {"type": "account.exploded", "account": "x"},
    "broken JSON": {"body": "{bad"},
    "broken headers": {"body": "[]", "headers": "no JSON"},
    "empty": {"body": ""},
    "NUL": {"type": "account.disabled", "account": "a\0b"},
    "NUL in headers": {"body": "5", "headers": json.dumps({"x\0": "\ud800"})},
    "10 MB": {"body": b"x" * 10_000_000},
    "10 MB of fields": {"type": "account.disabled", "account": b"x" * 10_000_000},
}


def test_bad_entries_among_a_thousand_good_ones(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    bad = list(BAD.values())
    for number in range(1000):
        add(redis, number)
        if number % 100 == 50:
            redis.xadd(IN, bad[number // 100])
    redis.xadd(IN, bad[-1])
    once()
    assert states(database) == {"received": 1000, "rejected": len(bad)}
    assert [one for one in stored(database) if one] == [str(n) for n in range(1000)]
    assert redis.xlen(IN) == 0


@pytest.mark.parametrize("name", BAD)
def test_a_bad_entry_is_kept_with_its_reason(
    redis: "Redis", database: Database, once: Callable[..., None], name: str
) -> None:
    redis.xadd(IN, BAD[name])
    once()
    [reason] = reasons(database)
    code, _, words = reason.partition(": ")
    assert code.isidentifier()
    assert words
    with database.begin() as tx:
        assert tx.scalar("SELECT length(body) FROM keyturn.inbox") is not None


def test_what_the_database_refuses_is_stored_as_rejected(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    """A member at fault, among good ones, is found by halves; the others are stored as they are."""
    with database.begin() as tx:
        tx.execute(
            "ALTER TABLE keyturn.inbox ADD CONSTRAINT test CHECK (event_id IS DISTINCT FROM '7')"
        )
    for number in range(20):
        add(redis, number)
    once()
    assert states(database) == {"received": 19, "rejected": 1}
    [reason] = reasons(database)
    assert reason.startswith("not_stored: IntegrityError")


def test_an_adapter_that_fails_holds_nothing_up(
    redis: "Redis",
    database: Database,
    once: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("worker.intake.providers.native.from_fields", fail)
    add(redis, 1)
    redis.xadd(OKTA, {"body": sample("okta").decode()})
    once()
    assert reasons(database)[0].startswith("adapter_failed: ")
    assert sum(states(database).values()) >= 2


def sample(provider: str) -> bytes:
    return min(SAMPLES.glob(f"{provider}-*.json")).read_bytes()


@pytest.mark.parametrize(("provider", "name"), [("okta", OKTA), ("keycloak", KEYCLOAK)])
@pytest.mark.parametrize("field", ["body", "payload"])
def test_a_providers_message(
    redis: "Redis",
    database: Database,
    once: Callable[..., None],
    provider: str,
    name: str,
    field: str,
) -> None:
    body = sample(provider)
    redis.xadd(name, {field: body})
    once()
    with database.begin() as tx:
        found = inbox.listed(tx)
    assert found
    assert {(one.source, one.provider) for one in found} == {(provider, provider)}
    assert "rejected" not in {one.state for one in found}


def test_a_batch_of_a_thousand_members_in_one_entry(
    redis: "Redis", database: Database, once: Callable[..., None]
) -> None:
    members = [logged(number) for number in range(1000)]
    members[500] = {"uuid": 5}  # one that cannot be read
    redis.xadd(OKTA, {"body": json.dumps(members)})
    once()
    assert states(database) == {"received": 999, "rejected": 1}
    assert [one for one in stored(database) if one] == [
        f"e{number}" for number in range(1000) if number != 500
    ]
    assert redis.xlen(OKTA) == 0


def logged(number: int) -> dict[str, Any]:
    """An event of Okta's System Log."""
    return {
        "uuid": f"e{number}",
        "eventType": "user.lifecycle.deactivate",
        "published": "2026-11-23T08:40:00.000Z",
        "outcome": {"result": "SUCCESS"},
        "target": [{"type": "User", "id": f"00u{number}", "alternateId": f"u{number}@example.com"}],
    }
