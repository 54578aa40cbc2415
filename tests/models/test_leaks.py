"""A report of a leaked key stops that key at once, and nothing else (rules 2.1, 2.4, 2.7)."""

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from models import api_keys, holds
from models.base import Database
from models.events import AccountEvent, Action
from models.key_text import Peppers
from tests.world import World


@pytest.fixture
def world(database_url: str) -> World:
    made = World(Database(database_url))
    made.account()
    return made


def leaked(text: str, **said: object) -> AccountEvent:
    """What a scanner reports: never the text, only its SHA-256."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    return AccountEvent.model_validate(
        {"action": Action.KEY_LEAKED, "key_digest": digest, "raw_type": "key.leaked", **said}
    )


def reason(world: World, number: int = 1) -> str | None:
    with world.database.begin() as tx:
        found: str | None = tx.scalar("SELECT reason FROM keyturn.inbox WHERE id = :id", id=number)
    return found


def test_a_leaked_key_stops_at_once_and_the_accounts_others_work_on(world: World) -> None:
    key, text = world.key()
    _, other = world.key()
    world.receive(leaked(text))
    world.apply()
    assert world.states() == ["done"]
    assert world.verify(text).reason == "key_held"
    assert world.status(key) == "disabled"
    assert world.verify(other).valid
    with world.database.begin() as tx:
        [hold] = holds.standing(tx, holds.on_key(key))
        account = api_keys.find(tx, str(key)).account_id
        event_of = tx.scalar("SELECT account_id FROM keyturn.inbox")
    assert (hold.source, hold.kind) == ("okta", "compromised")
    assert hold.reason == "key.leaked (event 1)"
    assert event_of == account


def test_the_text_that_was_hashed_is_nowhere(world: World) -> None:
    _, text = world.key()
    world.receive(leaked(text))
    with world.database.begin() as tx:
        assert text not in str(tx.rows("SELECT * FROM keyturn.inbox"))


def test_a_key_under_an_older_pepper_is_found(world: World) -> None:
    _, text = world.key()
    world.peppers = Peppers({1: world.peppers[1], 2: b"q" * 32})
    _, newer = world.key()
    world.receive(leaked(text), leaked(newer))
    world.apply()
    assert [world.verify(one).reason for one in (text, newer)] == ["key_held", "key_held"]


def test_an_imported_digest_without_a_pepper_is_found(world: World) -> None:
    key, text = world.key()
    with world.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET scheme = 'sha256', digest = :digest WHERE id = :id",
            digest=hashlib.sha256(text.encode()).digest(),
            id=key,
        )
    world.receive(leaked(text))
    world.apply()
    assert world.status(key) == "disabled"


def test_a_text_that_no_key_has_is_said_to_be_unknown(world: World) -> None:
    world.receive(leaked("kt_nobodys"))
    world.apply()
    assert world.states() == ["done"]
    assert str(reason(world)).startswith("key_unknown")


def test_a_deleted_key_stays_as_it_is(world: World) -> None:
    key, text = world.key()
    with world.database.begin() as tx:
        api_keys.locked(tx, str(key))
        assert api_keys.delete(tx, key, actor="op", why="requested", policy=world.policy)
    world.receive(leaked(text))
    world.apply()
    assert world.states() == ["done"]
    assert world.status(key) == "deleted"


@pytest.mark.parametrize("minutes", [-60 * 24 * 365, 60], ids=["long ago", "in the future"])
def test_a_report_always_counts_whenever_it_is_from(world: World, minutes: int) -> None:
    _, text = world.key()
    world.receive(leaked(text, occurred_at=datetime.now(UTC) + timedelta(minutes=minutes)))
    world.apply()
    assert world.states() == ["done"]
    assert not world.verify(text).valid


def test_a_conflicting_report_stops_its_key_and_then_parks(world: World) -> None:
    (_, first), (_, second) = world.key(), world.key()
    world.receive(leaked(first, event_id="42"))
    assert world.receive(leaked(second, event_id="42")) == {"conflict": 1}
    world.apply()
    assert world.states() == ["done", "parked"]
    assert str(reason(world, 2)).startswith("conflict")
    assert not world.verify(second).valid


def test_a_second_report_changes_nothing(world: World) -> None:
    key, text = world.key()
    for _ in range(2):
        world.receive(leaked(text))
        world.apply()
    assert world.states() == ["done", "done"]
    with world.database.begin() as tx:
        assert api_keys.find(tx, str(key)).version == 2


@pytest.mark.parametrize("digest", [None, "", "f" * 63, "g" * 64, "F" * 64])
def test_a_report_without_a_digest_is_none(digest: str | None) -> None:
    with pytest.raises(ValidationError):
        leaked("kt_any", key_digest=digest)
