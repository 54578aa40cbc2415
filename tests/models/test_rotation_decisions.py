"""What operators decide: undo, retry and reissue, in every stage, once or twice."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from models import rotation_steps
from models.errors import Refused
from models.rotations import Claimed, Rotation
from tests.models.rotation_stages import LIVE, STAGES, claimed, finish, unclaimed
from tests.models.scene import DAY, HOUR, MINUTE, Scene

VERBS: dict[str, Callable[[Scene, Rotation], Rotation]] = {
    "confirm": Scene.confirm,
    "cancel": Scene.cancel,
    "undo": Scene.undo,
    "retry": Scene.retry,
    "reissue": Scene.reissue,
}
ANSWERS = {
    "unclaimed": {
        "confirm": "not_claimed",
        "cancel": "cancelled",
        "undo": "not_retired",
        "retry": "issued",
        "reissue": "issued",
    },
    "claimed": {
        "confirm": "draining",
        "cancel": "cancelled",
        "undo": "not_retired",
        "retry": "issued",
        "reissue": "issued",
    },
    "draining": {
        "confirm": "draining",
        "cancel": "already_confirmed",
        "undo": "not_retired",
        "retry": "draining",
        "reissue": "already_confirmed",
    },
    "blocked": {
        "confirm": "retired",
        "cancel": "already_confirmed",
        "undo": "not_retired",
        "retry": "draining",
        "reissue": "already_confirmed",
    },
    "retired": {
        "confirm": "retired",
        "cancel": "rotation_ended",
        "undo": "draining",
        "retry": "retired",
        "reissue": "rotation_ended",
    },
    "undone": {
        "confirm": "draining",
        "cancel": "already_confirmed",
        "undo": "draining",
        "retry": "draining",
        "reissue": "already_confirmed",
    },
    "completed": {
        "confirm": "completed",
        "cancel": "rotation_ended",
        "undo": "undo_over",
        "retry": "completed",
        "reissue": "rotation_ended",
    },
    "cancelled": {
        "confirm": "rotation_cancelled",
        "cancel": "cancelled",
        "undo": "rotation_cancelled",
        "retry": "cancelled",
        "reissue": "rotation_cancelled",
    },
}
"""The state that each verb leaves of each stage, or the code with which it is refused."""


def answer(scene: Scene, verb: str, rotation: Rotation) -> str:
    """What a verb leads to: the state of the rotation that it answers with, or a code."""
    try:
        return VERBS[verb](scene, rotation).state
    except Refused as refused:
        return refused.code


def written(scene: Scene) -> tuple[int, ...]:
    """How much there is: keys, rotations, audit entries, messages."""
    tables = ("api_keys", "rotations", "audit", "outbox")
    return tuple(len(scene.sql(f"SELECT FROM keyturn.{table}")) for table in tables)


@pytest.mark.parametrize("stage", STAGES)
def test_every_verb_in_every_stage_and_again_after_a_lost_answer(scene: Scene, stage: str) -> None:
    assert STAGES.keys() == ANSWERS.keys()
    for verb in VERBS:
        rotation = STAGES[stage](scene)
        assert (verb, answer(scene, verb, rotation)) == (verb, ANSWERS[stage][verb])
        done = written(scene)
        again = answer(scene, verb, rotation)
        assert (verb, again) == (verb, ANSWERS[stage][verb])
        assert (verb, written(scene)) == (verb, done)


@pytest.mark.parametrize("stage", LIVE)
def test_of_a_held_account_nothing_is_decided_but_an_end(scene: Scene, stage: str) -> None:
    rotation = LIVE[stage](scene)
    scene.hold()
    codes = {verb: answer(scene, verb, rotation) for verb in ("undo", "retry", "reissue")}
    assert codes["retry"] == "account_held"
    assert codes["undo"] == ("account_held" if stage == "retired" else "not_retired")
    assert codes["reissue"] == (
        "account_held" if stage in ("unclaimed", "claimed") else ANSWERS[stage]["reissue"]
    )


# Undo (rule 5.6).


def test_undo_brings_the_old_key_back_beside_the_new_one(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(3 * DAY)
    undone = scene.undo(rotation, "a nightly job needs it")
    assert (undone.state, undone.retired_at, undone.undo_until) == ("draining", None, None)
    assert (undone.undone_at, undone.resumed_at) == (scene.now(), scene.now())
    assert scene.find_key(rotation.old_key_id).status == "active"
    assert scene.find_key(rotation.new_key_id).status == "active"
    assert scene.events("key.enabled") == [rotation.old_key_id]
    assert ("rotation.undone", "a nightly job needs it") in scene.audited(rotation)


def test_after_an_undo_everything_is_waited_for_anew(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(6 * DAY)
    undone = scene.undo(rotation)
    assert undone.retire_at == scene.now() + 7 * DAY
    scene.later(7 * DAY - MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "draining"
    scene.later(MINUTE)
    scene.advance()
    retired = scene.rotation(rotation)
    assert (retired.state, retired.retired_at) == ("retired", scene.now())
    assert retired.undo_until == scene.now() + 7 * DAY
    assert scene.undo(rotation).state == "draining"


def test_an_undone_rotation_waits_for_quiet_too(scene: Scene) -> None:
    rotation = scene.undo(scene.retired())
    scene.later(7 * DAY - HOUR)
    scene.use(rotation.old_key_id)
    scene.later(HOUR)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "old_key_in_use"


def test_undo_at_the_last_moment_and_a_moment_later(scene: Scene) -> None:
    rotations = [scene.retired(), scene.retired()]
    assert rotations[1].undo_until is not None
    scene.clock.move_to(rotations[1].undo_until - timedelta(microseconds=1))
    assert scene.undo(rotations[1]).state == "draining"
    with pytest.raises(Refused) as refused:
        scene.undo(rotations[0])
    assert refused.value.code == "undo_over"
    assert "was deleted at" in str(refused.value)


def test_a_newer_rotation_ends_the_time_for_undo(scene: Scene) -> None:
    rotation = scene.retired()
    newer = scene.request(rotation.new_key_id)
    with pytest.raises(Refused, match=f"rotation {newer.id} of the new key ended it") as refused:
        scene.undo(rotation)
    assert refused.value.code == "undo_over"


def test_what_is_known_to_others_is_not_brought_back(scene: Scene) -> None:
    rotation = scene.retired()
    scene.hold(key=rotation.old_key_id, kind="compromised")
    assert answer(scene, "undo", rotation) == "key_compromised"
    assert scene.find_key(rotation.old_key_id).status == "retired"


def test_a_key_that_has_come_to_its_end_is_not_brought_back(scene: Scene) -> None:
    rotation = scene.retired(10 * DAY)
    scene.later(3 * DAY)
    assert answer(scene, "undo", rotation) == "key_expired"


def test_undo_saves_whoever_deleted_the_new_key(scene: Scene) -> None:
    rotation = scene.retired()
    scene.delete(rotation.new_key_id)
    undone = scene.undo(rotation)
    assert (undone.state, undone.cancel_reason) == ("cancelled", "successor_deleted")
    assert scene.find_key(rotation.old_key_id).status == "active"
    assert scene.undo(rotation) == undone
    assert scene.request(rotation.old_key_id).id != rotation.id


def test_another_hold_of_the_old_key_stands_after_an_undo(scene: Scene) -> None:
    rotation = scene.retired()
    scene.hold(key=rotation.old_key_id)
    scene.undo(rotation)
    assert scene.find_key(rotation.old_key_id).status == "disabled"
    scene.lift(key=rotation.old_key_id)
    assert scene.find_key(rotation.old_key_id).status == "active"


# Reissue (rule 5.3).


def test_reissue_after_a_terminal_that_died_while_printing(scene: Scene) -> None:
    lost = claimed(scene)
    issued = scene.reissue(lost)
    assert (issued.state, issued.old_key_id) == ("issued", lost.old_key_id)
    was = scene.rotation(lost)
    assert (was.state, was.cancel_reason, was.reissued_as) == ("cancelled", "reissued", issued.id)
    assert scene.find_key(lost.new_key_id).status == "deleted"
    assert scene.claimed(lost.old_key_id).key_id == issued.new_key_id
    finish(scene, issued)


def test_there_are_never_two_live_successors(scene: Scene) -> None:
    rotation = claimed(scene)
    for _ in range(3):
        rotation = scene.reissue(rotation)
        live = scene.sql(
            "SELECT id FROM keyturn.api_keys WHERE status = 'active' AND id <> :old",
            old=rotation.old_key_id,
        )
        assert [row["id"] for row in live] == [rotation.new_key_id]


def test_reissued_with_an_old_identifier_is_the_rotation_that_is_there(scene: Scene) -> None:
    first = claimed(scene)
    second = scene.reissue(first)
    third = scene.reissue(second)
    assert scene.reissue(first).id == third.id
    assert len(scene.sql("SELECT FROM keyturn.rotations")) == 3


def test_the_request_that_was_reissued_is_answered_with_the_new_one(scene: Scene) -> None:
    old = scene.key()
    rotation = scene.request(old, "ticket-1")
    issued = scene.reissue(rotation)
    assert scene.request(old, "ticket-1").id == issued.id


def test_the_owner_is_told_of_the_new_key_and_not_of_a_cancellation(scene: Scene) -> None:
    issued = scene.reissue(claimed(scene))
    assert scene.mails("rotation.cancelled") == []
    told = {mail["rotation_id"] for mail in scene.told("rotation.issued")}
    assert len(told) == 2
    assert str(issued.id) in told


def test_an_unclaimed_successor_is_reissued_for_the_whole_time(scene: Scene) -> None:
    rotation = unclaimed(scene)
    scene.later(71 * HOUR)
    issued = scene.reissue(rotation)
    assert issued.claim_until == scene.now() + 72 * HOUR
    assert isinstance(scene.claim(issued.old_key_id), Claimed)


def test_a_successor_in_use_is_not_taken_away(scene: Scene) -> None:
    rotation = claimed(scene)
    scene.use(rotation.new_key_id)
    assert answer(scene, "reissue", rotation) == "already_confirmed"
    assert scene.find_key(rotation.new_key_id).status == "active"


def test_reissue_for_an_old_key_that_has_expired_unclaimed(scene: Scene) -> None:
    old = scene.key(2 * HOUR)
    scene.later(2 * HOUR - MINUTE)
    rotation = scene.request(old)
    scene.later(2 * MINUTE)
    issued = scene.reissue(rotation)
    assert issued.new_expires_at == scene.now() + 2 * HOUR
    assert scene.claimed(old).key_id == issued.new_key_id


def test_a_disabled_key_is_not_reissued_for(scene: Scene) -> None:
    rotation = claimed(scene)
    scene.hold(key=rotation.old_key_id)
    assert answer(scene, "reissue", rotation) == "key_held"
    assert scene.rotation(rotation).state == "issued"


def test_a_leaked_key_is_not_reissued_for(scene: Scene) -> None:
    rotation = claimed(scene)
    scene.hold(key=rotation.old_key_id, kind="compromised")
    assert answer(scene, "reissue", rotation) == "key_compromised"


# Retry.


def test_retry_takes_the_step_that_failed(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    rotation = claimed(scene)
    scene.use(rotation.new_key_id)
    with monkeypatch.context() as broken:
        broken.setattr(rotation_steps, "retirement", lambda **_: 1 / 0)
        scene.advance()
        assert scene.rotation(rotation).blocked_reason == "step_failed"
        assert scene.retry(rotation).blocked_reason == "step_failed"
    assert scene.rotation(rotation).state == "issued"
    after = scene.retry(rotation)
    assert (after.state, after.blocked_reason) == ("draining", None)
    assert [mail["total"] for mail in scene.mails("rotation.confirmed")] == [1]
    retried = ("rotation.retried", "step_failed")
    assert scene.audited(rotation).count(retried) == 2


def test_retry_overrules_nothing(scene: Scene) -> None:
    rotation = STAGES["blocked"](scene)
    assert scene.retry(rotation).blocked_reason == "old_key_in_use"
    assert scene.find_key(rotation.old_key_id).status == "active"
