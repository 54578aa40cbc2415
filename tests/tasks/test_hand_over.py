"""The flow that hands new keys over: one sink's trouble is nobody else's."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import event as hooks
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

import tasks
from models.key_text import Secret
from models.keyring import Keyring
from models.policy import Policy
from models.rotation_policy import RotationPolicy
from models.rotations import Rotation
from models.sinks import HandOver, Outcome, Sink
from tests.models.hand_over_steps import BUSY, Shelf, row
from tests.models.scene import Scene, frozen_scene

SINKS = ("first", "second")


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    policies = {name: RotationPolicy(sink=name) for name in SINKS}
    with frozen_scene(database_url, Policy(rotation_policies=policies)) as made:
        yield made


def rotated(scene: Scene, policy: str) -> Rotation:
    """A rotation whose key goes to the sink of this name."""
    key = scene.key()
    scene.sql(
        "UPDATE keyturn.api_keys SET rotation_policy = :name WHERE id = :id RETURNING id",
        name=policy,
        id=key,
    )
    return scene.request(key)


def run(scene: Scene, **sinks: Sink) -> int:
    runtime = tasks.Runtime(
        scene.database,
        scene.policy,
        Keyring(scene.peppers, scene.sealer),
        channels={},
        sinks=sinks,
    )
    with capture_logs():
        return tasks.run(tasks.flows()["rotations.hand_over"], runtime)


def test_every_key_that_is_due_goes_to_its_own_sink(scene: Scene) -> None:
    made = [rotated(scene, name) for name in (*SINKS, *SINKS)]
    first, second = Shelf(), Shelf()
    assert run(scene, first=first, second=second) == 4
    assert set(first.texts) == {made[0].id, made[2].id}
    assert set(second.texts) == {made[1].id, made[3].id}
    assert run(scene, first=first, second=second) == 0


def test_a_sink_in_trouble_is_asked_once_a_run_and_holds_up_no_other(scene: Scene) -> None:
    made = [rotated(scene, name) for name in ("first", "first", "second")]
    first, second = Shelf(BUSY), Shelf()
    assert run(scene, first=first, second=second) == 1
    assert len(first.seen) == 1
    assert list(second.texts) == [made[2].id]
    assert {row(scene, one)["attempts"] for one in made[:2]} == {0, 1}


class Raising:
    """A sink with a fault of its own, whose words hold what nobody may see."""

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        raise RuntimeError(f"could not send {secret.reveal()}")


def test_what_a_sink_raises_is_told_by_its_kind_alone(scene: Scene) -> None:
    rotation = rotated(scene, "first")
    run(scene, first=Raising())
    assert row(scene, rotation)["state"] == "waiting"
    assert row(scene, rotation)["error"] == "the sink failed: RuntimeError"


def test_a_sink_that_the_settings_no_longer_name_waits_for_a_person(scene: Scene) -> None:
    rotation = rotated(scene, "first")
    told: list[dict[str, object]] = []
    scene.database.on_alarm = told.append
    run(scene, second=Shelf())
    assert scene.rotation(rotation).blocked_reason == "hand_over_failed"
    assert "no sink 'first'" in str(row(scene, rotation)["error"])
    assert [alarm["alarm"] for alarm in told] == ["hand_over_failed"]


def test_an_attempt_that_the_database_failed_at_costs_nothing(scene: Scene) -> None:
    rotation, broken = rotated(scene, "first"), [True]

    def fail(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "SET state" in statement and "hand_overs" in statement and broken.pop():
            broken.append(False)
            raise OperationalError("", {}, Exception("the server went away"))

    hooks.listen(scene.database.engine, "before_cursor_execute", fail)
    shelf = Shelf()
    with pytest.raises(OperationalError):
        run(scene, first=shelf)
    assert (row(scene, rotation)["attempts"], row(scene, rotation)["state"]) == (0, "waiting")
    hooks.remove(scene.database.engine, "before_cursor_execute", fail)
    assert run(scene, first=shelf) == 1
    assert len(shelf.seen) == 2
