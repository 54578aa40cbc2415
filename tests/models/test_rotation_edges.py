"""The edge cases of rotation: keys, accounts and roles that change at a bad moment."""

from dataclasses import replace
from datetime import timedelta

import pytest

from models import deletions, roles
from models.base import Tx
from models.errors import Refused
from models.keyring import Keyring
from models.roles import Role
from models.rotations import Claimed
from models.verification import Verifier
from tasks.clock import ClockGuard
from tasks.runtime import Runtime, flows, run
from tests.models.rotation_stages import LIVE, blocked, claimed, finish, unclaimed, undone
from tests.models.scene import DAY, HOUR, MINUTE, ROLES, START, Scene

SECOND = timedelta(seconds=1)


def works(scene: Scene, *keys: object) -> list[bool]:
    """Whether keys may be used now, by the text that their holders have."""
    verifier = Verifier(scene.database, scene.peppers)
    try:
        texts = [text.reveal() for key, text in scene.texts.items() if key in keys]
        return [verifier.verify(text, None)[0].valid for text in texts]
    finally:
        verifier.close()


# Keys that end or are deleted.


def test_the_old_key_expires_while_draining(scene: Scene) -> None:
    rotation = scene.draining(3 * DAY)
    scene.later(3 * DAY)
    scene.advance()
    ended = scene.rotation(rotation)
    assert (ended.state, ended.blocked_reason) == ("completed", None)
    assert scene.find_key(rotation.new_key_id).status == "active"
    assert scene.sql("SELECT FROM keyturn.holds") == []


def test_the_old_key_expires_in_use_while_its_rotation_is_blocked(scene: Scene) -> None:
    rotation = scene.draining(8 * DAY)
    for _ in range(8):
        scene.later(DAY - MINUTE)
        scene.use(rotation.old_key_id)
        scene.advance()
    assert scene.rotation(rotation).blocked_reason == "old_key_in_use"
    scene.clock.move_to(rotation.old_expires_at)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"


def test_the_old_key_expires_before_the_claim(scene: Scene) -> None:
    old = scene.key(3 * HOUR)
    scene.later(HOUR)
    rotation = scene.request(old)
    scene.later(2 * HOUR + SECOND)
    assert scene.advance() == 0
    assert works(scene, old) == [False]
    assert scene.claimed(old).key_id == rotation.new_key_id
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert works(scene, rotation.new_key_id) == [True]


def test_thirty_seconds_of_life_are_enough(scene: Scene) -> None:
    old = scene.key(2 * HOUR)
    scene.later(2 * HOUR - 30 * SECOND)
    rotation = scene.request(old)
    assert rotation.new_expires_at == scene.now() + 2 * HOUR
    scene.later(MINUTE)
    assert scene.advance() == 0
    assert scene.claimed(old).key_id == rotation.new_key_id
    scene.use(rotation.new_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert works(scene, rotation.new_key_id) == [True]


def test_thirty_seconds_left_while_draining_in_use(scene: Scene) -> None:
    """The old key is neither blocked nor retired in its last seconds: its end ends the rotation."""
    old = scene.key(2 * DAY)
    scene.later(HOUR)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    scene.clock.move_to(rotation.old_expires_at - 30 * SECOND)
    scene.use(rotation.old_key_id)
    scene.advance()
    waits = scene.rotation(rotation)
    assert (waits.state, waits.blocked_reason) == ("draining", None)
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [True, True]
    scene.later(30 * SECOND)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [False, True]
    assert scene.mails("rotation.blocked") == []
    assert scene.events("key.rotated") == []


def test_undone_with_thirty_seconds_left(scene: Scene) -> None:
    old = scene.key(10 * DAY)
    scene.later(DAY)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    scene.later(7 * DAY)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"
    scene.clock.move_to(rotation.old_expires_at - 30 * SECOND)
    undone = scene.undo(rotation)
    assert undone.retire_at == rotation.old_expires_at
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [True, True]
    scene.later(30 * SECOND)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [False, True]


def test_claimed_with_thirty_seconds_left_and_never_used(scene: Scene) -> None:
    old = scene.key(2 * HOUR)
    scene.later(2 * HOUR - 30 * SECOND)
    rotation = scene.request(old)
    scene.claimed(old)
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "completed"
    assert works(scene, rotation.new_key_id) == [True]


@pytest.mark.parametrize(
    ("stage", "state"),
    [("unclaimed", "cancelled"), ("claimed", "cancelled"), ("draining", "cancelled")],
)
def test_the_successor_is_deleted_by_its_owner(scene: Scene, stage: str, state: str) -> None:
    rotation = LIVE[stage](scene)
    scene.delete(rotation.new_key_id)
    scene.advance()
    ended = scene.rotation(rotation)
    assert (ended.state, ended.cancel_reason) == (state, "successor_deleted")
    assert works(scene, rotation.old_key_id) == [True]
    assert [mail["code"] for mail in scene.told("rotation.cancelled")] == ["successor_deleted"]
    assert scene.request(rotation.old_key_id).state == "issued"


@pytest.mark.parametrize(
    ("stage", "state"),
    [
        ("unclaimed", "cancelled"),
        ("claimed", "completed"),
        ("draining", "completed"),
        ("retired", "completed"),
    ],
)
def test_the_old_key_is_deleted_by_its_owner(scene: Scene, stage: str, state: str) -> None:
    rotation = LIVE[stage](scene)
    scene.delete(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == state
    if stage != "unclaimed":
        assert works(scene, rotation.new_key_id) == [True]


# Accounts.


@pytest.mark.parametrize("pause", [MINUTE, 7 * DAY], ids=["a minute", "a week"])
@pytest.mark.parametrize("stage", LIVE)
def test_the_account_is_held_and_restored(scene: Scene, stage: str, pause: timedelta) -> None:
    rotation = LIVE[stage](scene)
    scene.hold()
    scene.advance()
    scene.later(pause)
    assert scene.advance() == 0
    assert scene.rotation(rotation).state == rotation.state
    scene.lift()
    scene.advance()
    after = scene.rotation(rotation)
    if stage == "unclaimed":
        assert (after.state, after.cancel_reason) == ("cancelled", "account_held")
        assert finish(scene, scene.request(rotation.old_key_id)).state == "completed"
        return
    assert (after.state, after.paused_at) == (rotation.state, None)
    if rotation.undo_until is not None:
        assert after.undo_until == rotation.undo_until + pause
    elif rotation.retire_at is not None:
        assert after.retire_at == rotation.retire_at + pause
    finish(scene, after)


@pytest.mark.parametrize("pause", [MINUTE, 7 * DAY], ids=["a minute", "a week"])
def test_the_account_is_held_while_the_old_key_in_use_blocks(
    scene: Scene, pause: timedelta
) -> None:
    """Quiet is waited for anew: nobody could use the key meanwhile."""
    rotation = blocked(scene)
    scene.hold()
    scene.advance()
    assert scene.rotation(rotation).blocked_reason is None
    scene.later(pause)
    assert scene.advance() == 0
    scene.lift()
    scene.advance()
    after = scene.rotation(rotation)
    assert (after.state, after.retire_at) == ("draining", scene.now() + 25 * HOUR)
    scene.use(rotation.old_key_id)
    scene.later(25 * HOUR)
    scene.advance()
    assert scene.rotation(rotation).state == "retired"


@pytest.mark.parametrize("pause", [MINUTE, 7 * DAY], ids=["a minute", "a week"])
def test_the_account_is_held_after_an_undo(scene: Scene, pause: timedelta) -> None:
    rotation = undone(scene)
    assert rotation.retire_at is not None
    scene.hold()
    scene.advance()
    scene.later(pause)
    scene.lift()
    scene.advance()
    after = scene.rotation(rotation)
    assert (after.state, after.retire_at) == ("draining", rotation.retire_at + pause)
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [True, True]
    finish(scene, after)


@pytest.mark.parametrize("stage", LIVE)
def test_the_account_is_deleted(scene: Scene, stage: str) -> None:
    rotation = LIVE[stage](scene)
    scene.hold(kind="deleted")
    scene.advance()
    scene.later(7 * DAY)
    scene.database.run(lambda tx: deletions.step(tx, scene.policy))
    scene.advance()
    ended = scene.rotation(rotation)
    assert ended.state == ("cancelled" if stage == "unclaimed" else "completed")
    statuses = {scene.find_key(key).status for key in (ended.old_key_id, ended.new_key_id)}
    assert statuses == {"deleted"}
    assert scene.sql("SELECT FROM keyturn.rotations WHERE sealed IS NOT NULL") == []


# Roles.


def know(scene: Scene, **changed: Role) -> None:
    """What the settings say of roles from now on."""

    def sync(tx: Tx) -> None:
        roles.sync(tx, {name: role for name, role in (ROLES | changed).items() if role.permissions})

    scene.database.run(sync)


@pytest.mark.parametrize(
    "changed",
    [
        {"reader": Role("reader", ("read",), grantable=False)},
        {"reader": Role("reader", ())},
        {"admin": Role("admin", ("write",))},
        {"reader": Role("reader", ("read", "write", "delete"))},
    ],
    ids=["not granted", "removed", "account's own narrowed", "widened beyond the account's"],
)
def test_nobody_is_handed_a_role_that_they_would_not_be_given_now(
    scene: Scene, changed: dict[str, Role]
) -> None:
    rotation = unclaimed(scene)
    know(scene, **changed)
    assert scene.refusal(rotation.old_key_id) == "role_not_allowed"
    assert scene.rotation(rotation).claimable
    with pytest.raises(Refused) as refused:
        scene.reissue(rotation)
    assert refused.value.code == "role_not_allowed"
    assert scene.rotation(rotation).state == "issued"
    know(scene)
    assert isinstance(scene.claim(rotation.old_key_id), Claimed)


def test_a_role_that_is_narrowed_while_draining_narrows_both_keys(scene: Scene) -> None:
    rotation = scene.request(scene.key(role="writer"))
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    scene.advance()
    know(scene, writer=Role("writer", ("write",), grantable=False))
    verifier = Verifier(scene.database, scene.peppers)
    try:
        for key in (rotation.old_key_id, rotation.new_key_id):
            verdict, _ = verifier.verify(scene.texts[key].reveal(), None)
            assert (verdict.valid, verdict.permissions) == (True, ("write",))
    finally:
        verifier.close()
    finish(scene, rotation)


def test_a_role_that_the_settings_drop_while_draining_takes_no_key_away(scene: Scene) -> None:
    """Keys that were given out keep their role; only no new one gets it."""
    rotation = scene.draining()
    know(scene, reader=Role("reader", ()))
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [True, True]
    ended = finish(scene, rotation)
    assert works(scene, ended.new_key_id) == [True]
    with pytest.raises(Refused) as refused:
        scene.request(ended.new_key_id)
    assert refused.value.code == "role_not_allowed"


def test_a_role_narrowed_before_the_request_is_not_given_again(scene: Scene) -> None:
    old = scene.key()
    know(scene, reader=Role("reader", ("read",), grantable=False))
    with pytest.raises(Refused) as refused:
        scene.request(old)
    assert refused.value.code == "role_not_allowed"


# Uses.


def test_a_nightly_job_that_uses_the_old_key_keeps_it(scene: Scene) -> None:
    """It is never quiet for 25 hours, even where the job begins up to 50 minutes late."""
    rotation = scene.draining()
    for night in range(30):
        scene.later(12 * HOUR)
        scene.advance()
        scene.later(12 * HOUR + (50 * MINUTE if night % 2 else -50 * MINUTE))
        scene.advance()
        scene.use(rotation.old_key_id)
    waits = scene.rotation(rotation)
    assert (waits.state, waits.blocked_reason) == ("draining", "old_key_in_use")
    assert waits.old_uses == 30
    assert len(scene.mails("rotation.blocked")) == 1
    assert scene.events("key.rotated") == []


def test_a_cache_in_the_gateway_that_hides_all_uses_retires_nothing(scene: Scene) -> None:
    rotation = claimed(scene)
    scene.confirm(rotation)
    for _ in range(20):
        scene.later(DAY)
        scene.advance()
    waits = scene.rotation(rotation)
    assert (waits.state, waits.blocked_reason) == ("draining", "uses_not_reported")
    assert works(scene, rotation.old_key_id) == [True]
    assert [mail["code"] for mail in scene.told("rotation.blocked")] == ["uses_not_reported"]


def test_a_cache_that_hides_the_uses_of_the_new_key_alone_confirms_nothing(scene: Scene) -> None:
    rotation = claimed(scene)
    for _ in range(20):
        scene.later(DAY)
        scene.use(rotation.old_key_id)
        scene.advance()
    assert scene.rotation(rotation).state == "issued"
    assert works(scene, rotation.old_key_id, rotation.new_key_id) == [True, True]


def test_a_stranger_claims_first_and_an_operator_puts_it_right(scene: Scene) -> None:
    rotation = unclaimed(scene)
    stolen = scene.claimed(rotation.old_key_id)
    assert scene.refusal(rotation.old_key_id) == "already_claimed"
    assert len(scene.mails("rotation.claimed_again")) == 1
    issued = scene.reissue(rotation)
    assert works(scene, stolen.key_id) == [False]
    assert scene.claimed(rotation.old_key_id).key_id == issued.new_key_id
    finish(scene, issued)


def test_a_stranger_who_has_used_the_key_is_stopped_by_deleting_it(scene: Scene) -> None:
    rotation = unclaimed(scene)
    stolen = scene.claimed(rotation.old_key_id)
    scene.use(stolen.key_id)
    with pytest.raises(Refused, match=f"keyturn keys delete {stolen.key_id}"):
        scene.reissue(rotation)
    scene.delete(stolen.key_id)
    again = scene.request(rotation.old_key_id)
    assert again.id != rotation.id
    finish(scene, again)


# Clocks.


def test_a_rotation_under_way_is_offered_though_the_clock_went_back_since_the_last(
    scene: Scene,
) -> None:
    rotation = unclaimed(scene)
    scene.cancel(rotation)
    scene.later(-timedelta(seconds=1))
    again = scene.request(rotation.old_key_id)
    assert scene.claimed(rotation.old_key_id).key_id == again.new_key_id


def test_while_a_clock_is_suspect_no_rotation_moves(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(8 * DAY)
    guard = ClockGuard(broker_time=lambda: START)
    runtime = Runtime(
        scene.database, scene.policy, Keyring(scene.peppers, scene.sealer), {}, clock=guard
    )
    assert run(flows()["rotations.advance"], runtime) == 0
    assert scene.rotation(rotation).state == "draining"
    runtime = replace(runtime, clock=ClockGuard())
    assert run(flows()["rotations.advance"], runtime) == 1
    assert scene.rotation(rotation).state == "retired"


@pytest.mark.parametrize("stage", LIVE)
def test_a_suspect_clock_ends_no_stage_however_late_it_is(scene: Scene, stage: str) -> None:
    """A clock that has jumped ahead by a year shows every deadline as past."""
    rotation = LIVE[stage](scene)
    scene.later(365 * DAY)
    guard = ClockGuard(broker_time=lambda: START)
    runtime = Runtime(
        scene.database, scene.policy, Keyring(scene.peppers, scene.sealer), {}, clock=guard
    )
    for flow in ("rotations.advance", "keys.delete_due", "upkeep.retention"):
        run(flows()[flow], runtime)
    assert scene.rotation(rotation).state == rotation.state
    assert scene.find_key(rotation.old_key_id).deleted_at is None
    assert scene.find_key(rotation.new_key_id).deleted_at is None
