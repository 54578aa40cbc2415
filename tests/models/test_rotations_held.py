"""A rotation while its account is held, and afterwards (rule 5.8)."""

from models.rotations import Claimed
from tests.models.scene import DAY, HOUR, MINUTE, START, Scene


def test_a_hold_destroys_an_unclaimed_secret(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.later(HOUR)
    scene.hold()
    held_at = scene.now()
    scene.later(HOUR)
    assert scene.advance() == 1
    paused = scene.rotation(rotation)
    assert (paused.state, paused.paused_at, paused.claimable) == ("issued", held_at, False)
    assert scene.sql("SELECT FROM keyturn.rotations WHERE sealed IS NOT NULL") == []


def test_while_held_timers_stand_still(scene: Scene) -> None:
    unclaimed, draining = scene.request(scene.key()), scene.draining()
    scene.hold()
    scene.advance()
    scene.later(30 * DAY)
    assert scene.advance() == 0
    assert scene.rotation(unclaimed).state == "issued"
    assert scene.rotation(draining).state == "draining"


def test_restored_what_was_unclaimed_is_cancelled(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.hold()
    scene.advance()
    scene.later(HOUR)
    scene.lift()
    assert scene.advance() == 1
    cancelled = scene.rotation(rotation)
    assert (cancelled.state, cancelled.cancel_reason) == ("cancelled", "account_held")
    assert scene.find_key(rotation.new_key_id).status == "deleted"
    assert [mail["code"] for mail in scene.told("rotation.cancelled")] == ["account_held"]
    assert scene.refusal(rotation.old_key_id) == "secret_gone"


def test_restored_what_was_claimed_goes_on(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.hold()
    scene.advance()
    scene.later(5 * DAY)
    scene.lift()
    scene.advance()
    assert scene.rotation(rotation).state == "issued"
    scene.use(rotation.new_key_id)
    scene.advance()
    draining = scene.rotation(rotation)
    assert (draining.state, draining.paused_at) == ("draining", None)
    assert draining.retire_at == scene.now() + 7 * DAY


def test_the_time_to_retire_shifts_by_the_pause(scene: Scene) -> None:
    rotation = scene.draining()
    assert rotation.retire_at == START + 7 * DAY
    scene.later(DAY)
    scene.hold()
    scene.advance()
    scene.later(3 * DAY)
    scene.lift()
    scene.later(HOUR)  # the run comes late: the pause ended with the hold all the same
    scene.advance()
    resumed = scene.rotation(rotation)
    assert resumed.retire_at == START + 10 * DAY
    assert resumed.resumed_at == START + 4 * DAY
    scene.clock.move_to(START + 10 * DAY - MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "draining"
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_quiet_is_counted_from_the_restoration(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    scene.hold()
    scene.advance()
    scene.later(DAY)
    scene.lift()
    scene.advance()
    assert scene.rotation(rotation).retire_at == scene.now() + 25 * HOUR


def test_a_hold_between_two_runs_counts_too(scene: Scene) -> None:
    unclaimed, draining = scene.request(scene.key()), scene.draining()
    scene.later(DAY)
    scene.hold()
    scene.later(2 * DAY)
    scene.lift()
    scene.later(HOUR)
    assert scene.refusal(unclaimed.old_key_id) == "secret_gone"
    scene.advance()
    assert scene.rotation(unclaimed).cancel_reason == "account_held"
    resumed = scene.rotation(draining)
    assert (resumed.retire_at, resumed.resumed_at) == (START + 9 * DAY, START + 3 * DAY)
    assert scene.advance() == 0


def test_a_hold_before_the_rotation_does_not_count(scene: Scene) -> None:
    old = scene.key()
    scene.hold()
    scene.later(HOUR)
    scene.lift()
    scene.later(HOUR)
    rotation = scene.request(old)
    assert scene.advance() == 0
    assert scene.rotation(rotation).claimable


def test_two_pauses_add_up(scene: Scene) -> None:
    rotation = scene.draining()
    for _ in range(2):
        scene.later(DAY)
        scene.hold()
        scene.advance()
        scene.later(DAY)
        scene.lift()
        scene.advance()
    assert scene.rotation(rotation).retire_at == START + 9 * DAY


def test_a_pause_lasts_until_the_last_source_lets_go(scene: Scene) -> None:
    rotation = scene.draining()
    scene.hold(kind="disabled")
    scene.advance()
    scene.later(DAY)
    scene.hold(kind="compromised")
    scene.lift(kind="disabled")
    scene.advance()
    assert scene.rotation(rotation).paused_at == START
    scene.later(DAY)
    scene.lift(kind="compromised")
    scene.advance()
    assert scene.rotation(rotation).retire_at == START + 9 * DAY


def test_the_undo_window_shifts_too(scene: Scene) -> None:
    rotation = scene.retired()
    assert rotation.undo_until is not None
    scene.hold()
    scene.advance()
    scene.later(3 * DAY)
    scene.lift()
    scene.advance()
    assert scene.rotation(rotation).undo_until == rotation.undo_until + 3 * DAY
    scene.clock.move_to(rotation.undo_until)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


def test_the_old_keys_own_end_does_not_shift(scene: Scene) -> None:
    old = scene.key(8 * DAY)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    scene.hold()
    scene.advance()
    scene.later(3 * DAY)
    scene.lift()
    scene.advance()
    assert scene.rotation(rotation).retire_at == START + 8 * DAY
    scene.later(5 * DAY)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"


def test_keys_deleted_while_held_end_the_rotation(scene: Scene) -> None:
    rotation = scene.draining()
    scene.hold()
    scene.advance()
    scene.delete(rotation.old_key_id)
    assert scene.advance() == 1
    assert scene.rotation(rotation).state == "completed"


def test_pause_and_resumption_are_audited(scene: Scene) -> None:
    rotation = scene.draining()
    scene.hold()
    scene.advance()
    scene.later(DAY)
    scene.lift()
    scene.advance()
    assert scene.audited(rotation)[-2:] == [
        ("rotation.paused", "account_held"),
        ("rotation.resumed", "account was held for 1 day, 0:00:00"),
    ]


def test_a_hold_on_another_account_pauses_nothing(scene: Scene) -> None:
    old = scene.key(account=scene.account("bob@example.com"))
    scene.request(old)
    scene.hold()
    assert scene.advance() == 0
    assert isinstance(scene.claim(old), Claimed)
