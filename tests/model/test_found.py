"""What the state machine found, each as short as it gets."""

from collections.abc import Iterator

import pytest

from models import accounts, holds, inbox
from models.base import Database
from models.errors import Refused
from models.events import Action
from models.inbox import Source
from tests.models.scene import DAY, HOUR, MINUTE, Scene, frozen_scene
from tests.world import ADA, World, event


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with frozen_scene(database_url) as made:
        yield made


def refusal(scene: Scene, key: object) -> str:
    with pytest.raises(Refused) as refused:
        scene.request(key)  # type: ignore[arg-type]
    return refused.value.code


def test_a_successor_whose_time_to_be_fetched_is_over_has_no_successor(scene: Scene) -> None:
    """The request itself cancels the rotation that is overdue; that deletes the key it is for."""
    rotation = scene.request(scene.key())
    scene.later(3 * DAY)
    assert refusal(scene, rotation.new_key_id) == "key_deleted"


def test_a_key_that_is_due_to_be_retired_has_no_second_successor(scene: Scene) -> None:
    """The request itself retires the old key: its successor is there and in use."""
    rotation = scene.draining()
    scene.later(7 * DAY + HOUR)
    assert scene.request(rotation.old_key_id).id == rotation.id
    assert scene.rotation(rotation).state == "retired"
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == 2


def test_a_pause_right_after_the_first_use_does_not_eat_the_overlap(scene: Scene) -> None:
    """The account is held before any flow has seen the successor's first use (rule 5.8)."""
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    scene.later(MINUTE)
    scene.hold()
    scene.later(30 * DAY)
    scene.lift()
    scene.advance()
    scene.later(6 * DAY)
    scene.advance()
    assert scene.rotation(rotation).state == "draining"
    scene.later(DAY + MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_a_pause_leaves_nothing_for_a_person_to_decide(scene: Scene) -> None:
    """Timers stand still while the account is held: what blocked is looked at anew after it."""
    rotation = scene.draining()
    scene.hold(key=rotation.new_key_id)
    scene.later(8 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "successor_not_working"
    scene.hold()
    scene.advance()
    paused = scene.rotation(rotation)
    assert (paused.paused_at, paused.blocked_reason) == (scene.now(), None)
    scene.lift()
    scene.later(2 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "successor_not_working"


def test_a_cut_that_was_parked_is_itself_when_it_is_replayed(database_url: str) -> None:
    """It has no time of its own and marks how far its source has come: it is not older than that.

    An operator lifted its hold, looks again, and has it replayed: now it counts.
    """
    world = World(Database(database_url))
    world.account()
    world.receive(event(Action.ENABLED, "bob@example.com", event_id="1"))
    world.receive(event(Action.DISABLED, event_id="1"))
    world.apply()
    assert world.states() == ["waiting_for_account", "parked"]
    with world.database.begin() as tx:
        account_id = accounts.find(tx, ADA).id
        cause = holds.Cause(source="okta", kind="disabled", actor="op")
        assert holds.lift(tx, holds.on_account(account_id), cause, world.policy)
        inbox.requeue(tx, 2, Source("okta", "okta"))
    world.apply()
    with world.database.begin() as tx:
        assert accounts.find(tx, ADA).held
    assert world.states() == ["waiting_for_account", "done"]
