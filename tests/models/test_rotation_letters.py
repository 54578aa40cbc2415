"""What comes to many rotations of an owner is one mail, and nobody is told twice."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from models import outbox, rotation_letters, rotation_mails, rotations
from models.base import Tx
from models.messages import Delivery, Outgoing
from models.operations import Selection
from models.rotation_policy import RotationPolicy
from models.rotations import Rotation
from tests.models.bulk import Bulk
from tests.models.rotation_stages import blocked
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, Scene
from worker.channels.messages import mail

KEYS = 12
TURNS = (
    *("rotation.cancelled", "rotation.confirmed", "rotation.ending", "rotation.blocked"),
    "rotation.completed",
)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of several transactions, as many rotations take."""
    monkeypatch.setattr(rotations, "BATCH", 5)


def planned(scene: Scene, keys: int = KEYS, owners: Sequence[str] = (OWNER,)) -> list[Rotation]:
    """Keys of each owner that one plan has rotated, in several waves."""
    accounts = [scene.owner, *(scene.account(one) for one in owners[1:])]
    for account in accounts:
        for number in range(keys):
            scene.key(account=account, name=f"key {number}")
    bulk = Bulk(scene, wave_keys=5)
    plan = bulk.applied(Selection(everything=True))
    bulk.work()
    assert bulk.find(plan).state == "completed"
    with scene.database.begin() as tx:
        return rotations.listed(tx)


def sent(scene: Scene, kind: str | None = None) -> list[Outgoing]:
    """What a worker sends now, of one kind, each as a mail that can be made."""

    def leave(tx: Tx, leased: outbox.Leased) -> list[Outgoing]:
        messages, skipped = rotation_letters.refresh(tx, leased.messages, scene.policy)
        outbox.skip(tx, leased, skipped)
        outbox.settle(tx, leased, [Delivery(id=one.id, state="sent") for one in messages])
        return messages

    leased = scene.database.run(lambda tx: outbox.lease(tx, "mail", scene.policy))
    messages = scene.database.run(lambda tx: leave(tx, leased))
    for message in messages:
        assert mail(message, "keyturn@example.com")["To"] == message.recipient
    return [message for message in messages if kind in (None, message.kind)]


def named(message: Outgoing) -> list[str]:
    """The old keys that a message names."""
    told: Any = message.payload["rotations"]
    return sorted(one["key"]["name"] for one in told)


def bring(scene: Scene, kind: str, begun: Sequence[Rotation]) -> None:
    """Bring rotations, one run a minute, to a turn of which their owner is told."""

    def each(do: Callable[[Rotation], object]) -> None:
        for rotation in begun:
            do(rotation)
            scene.later(MINUTE)
            scene.advance()

    def nothing(_: Rotation) -> None:
        return None

    if kind == "rotation.cancelled":
        scene.later(scene.policy.sealed_for)
        return each(nothing)
    each(lambda one: scene.claimed(one.old_key_id))
    each(lambda one: scene.use(one.new_key_id))
    if kind == "rotation.confirmed":
        return None
    sent(scene)
    scene.later(6 * DAY - timedelta(minutes=len(begun)))
    each(nothing)
    if kind == "rotation.ending":
        return None
    sent(scene)
    scene.later(DAY - 30 * MINUTE)
    if kind == "rotation.blocked":
        for one in begun:
            scene.use(one.old_key_id)
        scene.later(30 * MINUTE)
        return each(nothing)
    scene.later(7 * DAY)
    each(nothing)
    scene.later(7 * DAY)
    sent(scene)
    return each(nothing)


@pytest.mark.parametrize("kind", TURNS)
def test_what_comes_to_all_keys_of_a_plan_is_one_mail(scene: Scene, kind: str) -> None:
    begun = planned(scene)
    sent(scene)
    bring(scene, kind, begun)
    messages = scene.mails(kind)
    assert sum(one["total"] for one in messages) == KEYS
    assert len(messages) > 2  # as many as there were transactions
    assert sent(scene, kind) == []
    scene.later(HOUR)
    [message] = sent(scene, kind)
    assert message.payload["total"] == KEYS
    assert named(message) == sorted(f"key {number}" for number in range(KEYS))
    scene.later(DAY)
    assert sent(scene, kind) == []


def test_each_owner_has_their_own(scene: Scene) -> None:
    planned(scene, 3, owners=(OWNER, "bob@example.com"))
    scene.later(scene.policy.sealed_for)
    scene.advance()
    scene.later(HOUR)
    messages = sent(scene, "rotation.cancelled")
    assert {one.recipient: one.payload["total"] for one in messages} == {
        OWNER: 3,
        "bob@example.com": 3,
    }


def test_a_message_names_some_and_counts_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation_letters, "MOST_NAMED", 4)
    planned(scene)
    scene.later(scene.policy.sealed_for)
    scene.advance()
    scene.later(HOUR)
    [message] = sent(scene, "rotation.cancelled")
    assert (len(named(message)), message.payload["total"]) == (4, KEYS)
    text = mail(message, "keyturn@example.com").get_content()
    assert f"... and {KEYS - 4} more." in text


def test_what_comes_after_it_has_left_is_told_with_the_next(scene: Scene) -> None:
    begun = planned(scene, 4)
    for late, rotation in enumerate(begun):
        scene.claimed(rotation.old_key_id)
        scene.use(rotation.new_key_id)
        scene.advance()
        scene.later(25 * MINUTE)
        messages = sent(scene, "rotation.confirmed")
        assert [one.payload["total"] for one in messages] == ([3] if late == 2 else [])
    scene.later(HOUR)
    [last] = sent(scene, "rotation.confirmed")
    assert last.payload["total"] == 1


def test_a_worker_that_dies_before_it_sends_has_told_nobody_and_nobody_is_told_twice(
    scene: Scene,
) -> None:
    planned(scene)
    sent(scene)
    scene.later(scene.policy.sealed_for)
    scene.advance()
    scene.later(HOUR)
    leased = scene.database.run(lambda tx: outbox.lease(tx, "mail", scene.policy))
    scene.database.run(lambda tx: rotation_letters.refresh(tx, leased.messages, scene.policy))
    assert sent(scene) == []  # it is the dead worker's until its lease ends
    scene.later(scene.policy.lease + MINUTE)
    [message] = sent(scene)
    assert (message.payload["total"], len(named(message))) == (KEYS, KEYS)
    states = scene.sql(
        "SELECT state, error, count(*) AS n FROM keyturn.outbox"
        " WHERE kind = 'rotation.cancelled' GROUP BY 1, 2 ORDER BY 1"
    )
    assert [(row["state"], row["error"]) for row in states] == [
        ("sent", None),
        ("skipped", rotation_letters.JOINED),
    ]


def test_two_workers_at_once_do_not_take_the_same_twice(scene: Scene) -> None:
    planned(scene)
    sent(scene)
    scene.later(scene.policy.sealed_for)
    scene.advance()
    scene.later(HOUR)
    one_each = replace(scene.policy, deliver_batch=1)
    leased = [
        scene.database.run(lambda tx: outbox.lease(tx, "mail", one_each)).messages for _ in "ab"
    ]
    totals = 0
    for messages in leased:
        kept, _ = scene.database.run(
            lambda tx, messages=messages: rotation_letters.refresh(tx, messages, scene.policy)  # type: ignore[misc]
        )
        totals += sum(int(str(one.payload["total"])) for one in kept)
    totals += sum(int(str(one.payload["total"])) for one in sent(scene))
    assert totals == KEYS


def test_what_was_asked_for_one_by_one_is_told_at_once_and_together(scene: Scene) -> None:
    """As where an account is disabled, and all its unfetched keys go."""
    begun = [scene.request(scene.key(name=f"key {number}")) for number in range(4)]
    [message] = sent(scene, "rotation.issued")
    assert message.payload["total"] == 4
    for rotation in begun:
        scene.cancel(rotation)
    [message] = sent(scene, "rotation.cancelled")
    assert message.payload["total"] == 4
    assert sent(scene) == []


def test_a_key_that_was_stopped_in_use_is_told_at_once(scene: Scene) -> None:
    scene.policy = replace(
        scene.policy, rotation_policies={"default": RotationPolicy(in_use="retire")}
    )
    [rotation] = planned(scene, 1)
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    scene.advance()
    scene.later(7 * DAY - HOUR)
    scene.use(rotation.old_key_id)
    scene.later(HOUR)
    scene.advance()
    [message] = sent(scene, "rotation.retired")
    assert f"`keyturn rotations undo {rotation.id}`" in (
        mail(message, "keyturn@example.com").get_content()
    )


def test_of_many_only_those_are_named_of_which_it_is_still_true(scene: Scene) -> None:
    begun = planned(scene, 5)
    for rotation in begun:
        scene.claimed(rotation.old_key_id)
        scene.use(rotation.new_key_id)
    scene.advance()
    scene.delete(begun[0].new_key_id)
    scene.advance()
    scene.later(HOUR)
    [message] = sent(scene, "rotation.confirmed")
    assert message.payload["total"] == 4
    assert begun[0].name not in named(message)


def test_a_message_of_an_earlier_release_is_sent(scene: Scene) -> None:
    rotation = scene.cancel(scene.request(scene.key()))
    scene.sql("DELETE FROM keyturn.outbox RETURNING 1")
    with scene.database.begin() as tx:
        rotation_mails.mail(tx, rotation, "cancelled", code="unclaimed", reason="nobody came")
    [message] = sent(scene)
    text = mail(message, "keyturn@example.com").get_content()
    assert "nobody came" in text
    assert str(rotation.old_key_id) in text


def test_who_was_told_why_a_rotation_is_blocked_is_not_told_again(scene: Scene) -> None:
    rotation = blocked(scene)
    assert len(sent(scene, "rotation.blocked")) == 1
    scene.hold()
    scene.advance()
    scene.later(MINUTE)
    scene.lift()
    scene.advance()
    assert scene.rotation(rotation).blocked_reason is None
    scene.later(25 * HOUR)
    scene.use(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "old_key_in_use"
    assert len(scene.mails("rotation.blocked")) == 1
