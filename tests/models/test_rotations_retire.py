"""The old key goes only when it is quiet, and a person decides where it is not (rule 5.5)."""

from tests.models.scene import DAY, HOUR, MINUTE, START, Scene

# 5.5: retired


def test_the_old_key_is_retired_after_overlap_and_quiet(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - MINUTE)
    scene.advance()
    assert scene.advance() == 0
    assert scene.find_key(rotation.old_key_id).status == "active"
    scene.later(MINUTE)
    assert scene.advance() == 1
    now = scene.rotation(rotation)
    assert (now.state, now.retired_at) == ("retired", scene.now())
    assert now.undo_until == scene.now() + 7 * DAY
    assert scene.find_key(rotation.old_key_id).status == "retired"
    assert scene.find_key(rotation.new_key_id).status == "active"
    assert scene.events("key.rotated") == [rotation.old_key_id]


def test_retirement_is_a_hold(scene: Scene) -> None:
    rotation = scene.retired()
    [hold] = scene.sql("SELECT * FROM keyturn.holds WHERE key_id = :key", key=rotation.old_key_id)
    assert (hold["source"], hold["kind"], hold["lifted_at"]) == ("keyturn", "rotated", None)


def test_still_in_use_at_the_deadline_a_person_decides(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    scene.use(rotation.old_key_id)
    scene.later(HOUR)
    scene.advance()
    blocked = scene.rotation(rotation)
    assert (blocked.state, blocked.blocked_reason) == ("draining", "old_key_in_use")
    assert scene.find_key(rotation.old_key_id).status == "active"
    [mail] = scene.told("rotation.blocked")
    assert mail["code"] == "old_key_in_use"
    assert "still in use" in mail["reason"]


def test_the_owner_is_told_once_however_often_it_is_used(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    for _ in range(4):
        scene.use(rotation.old_key_id)
        scene.later(20 * HOUR)
        scene.advance()
    assert scene.rotation(rotation).blocked_reason == "old_key_in_use"
    assert len(scene.mails("rotation.blocked")) == 1
    assert scene.audited(rotation).count(("rotation.blocked", "old_key_in_use")) == 1


def test_once_quiet_it_goes_on_by_itself(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    scene.use(rotation.old_key_id)
    scene.later(HOUR)
    scene.advance()
    scene.later(24 * HOUR - MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "draining"
    scene.later(MINUTE)
    scene.advance()
    retired = scene.rotation(rotation)
    assert (retired.state, retired.blocked_reason) == ("retired", None)


def test_a_persons_decision_retires_a_key_in_use(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY)
    scene.use(rotation.old_key_id)
    scene.advance()
    assert scene.confirm(rotation).state == "retired"
    assert scene.find_key(rotation.old_key_id).status == "retired"
    assert ("rotation.retired", "decided by a person, although old_key_in_use") in scene.audited(
        rotation
    )


def test_quiet_is_not_believed_where_no_use_was_recorded(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.confirm(rotation)
    scene.later(7 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "uses_not_reported"
    assert [mail["code"] for mail in scene.told("rotation.blocked")] == ["uses_not_reported"]
    scene.use(rotation.new_key_id)
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_unreported_uses_leave_the_old_key_to_its_own_end(scene: Scene) -> None:
    old = scene.key(90 * DAY)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.confirm(rotation)
    scene.clock.move_to(scene.find_key(old).expires_at)
    scene.advance()
    completed = scene.rotation(rotation)
    assert completed.state == "completed"
    assert ("rotation.completed", "old_key_expired") in scene.audited(rotation)


def test_a_use_before_the_rotation_does_not_count_as_reporting(scene: Scene) -> None:
    old = scene.key()
    scene.use(old)
    scene.later(DAY)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.confirm(rotation)
    scene.later(7 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "uses_not_reported"


def test_before_retiring_the_successor_must_work(scene: Scene) -> None:
    rotation = scene.draining()
    scene.hold(key=rotation.new_key_id)
    scene.later(7 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "successor_not_working"
    assert scene.find_key(rotation.old_key_id).status == "active"
    scene.lift(key=rotation.new_key_id)
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_before_retiring_the_successor_must_end_later(scene: Scene) -> None:
    rotation = scene.draining()
    scene.sql(
        "UPDATE keyturn.api_keys SET expires_at = :end WHERE id = :key RETURNING id",
        end=rotation.old_expires_at - HOUR,
        key=rotation.new_key_id,
    )
    scene.later(7 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "successor_ends_first"
    assert scene.find_key(rotation.old_key_id).status == "active"


def test_an_old_key_that_ends_first_completes_without_a_hold(scene: Scene) -> None:
    old = scene.key(5 * DAY)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).retire_at == START + 5 * DAY
    scene.later(5 * DAY)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert scene.sql("SELECT FROM keyturn.holds") == []


def test_an_old_key_deleted_while_draining_completes(scene: Scene) -> None:
    rotation = scene.draining()
    scene.delete(rotation.old_key_id)
    assert scene.advance() == 1
    assert scene.rotation(rotation).state == "completed"
    assert scene.find_key(rotation.new_key_id).status == "active"


def test_a_successor_deleted_while_draining_cancels_and_frees_the_family(scene: Scene) -> None:
    rotation = scene.draining()
    scene.delete(rotation.new_key_id)
    assert scene.advance() == 1
    cancelled = scene.rotation(rotation)
    assert (cancelled.state, cancelled.cancel_reason) == ("cancelled", "successor_deleted")
    assert scene.find_key(rotation.old_key_id).status == "active"
    assert scene.request(rotation.old_key_id).id != rotation.id


def test_a_reason_that_comes_back_is_not_told_again(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY)
    for _ in range(2):
        scene.use(rotation.old_key_id)
        scene.later(25 * HOUR - MINUTE)
        scene.use(rotation.old_key_id)
        scene.later(MINUTE)
        scene.advance()
        assert scene.rotation(rotation).blocked_reason == "old_key_in_use"
        scene.hold(key=rotation.new_key_id)
        scene.later(25 * HOUR)
        scene.advance()
        assert scene.rotation(rotation).blocked_reason == "successor_not_working"
        scene.lift(key=rotation.new_key_id)
    codes = [mail["code"] for mail in scene.told("rotation.blocked")]
    assert codes == ["old_key_in_use", "successor_not_working"]
