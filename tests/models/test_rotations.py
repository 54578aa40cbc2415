"""From the first use of the successor to the end of the rotation (rules 5.4, 5.6, 5.7)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from models import rotations
from models.errors import Refused
from models.rotations import Rotation
from tests.models.scene import DAY, HOUR, MINUTE, START, Scene

# 5.4: confirmed


def test_first_recorded_use_of_the_successor_confirms(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "issued"
    scene.later(HOUR)
    scene.use(rotation.new_key_id)
    used = scene.now()
    scene.later(HOUR)
    assert scene.advance() == 1
    now = scene.rotation(rotation)
    assert (now.state, now.confirmed_by, now.confirmed_at) == ("draining", "use", used)
    assert now.retire_at == used + 7 * DAY
    assert scene.advance() == 0


def test_a_use_of_the_old_key_confirms_nothing(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(rotation).state == "issued"


def test_an_operator_may_confirm_what_was_claimed(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    confirmed = scene.confirm(rotation)
    assert (confirmed.state, confirmed.confirmed_by) == ("draining", "op")
    assert scene.confirm(rotation).state == "draining"  # once more changes nothing
    assert scene.audited(rotation).count(("rotation.confirmed", "by op")) == 1


def refused_confirm(scene: Scene, rotation: Rotation) -> str:
    with pytest.raises(Refused) as refused:
        scene.confirm(rotation)
    return refused.value.code


def test_nobody_confirms_what_nobody_fetched(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    assert refused_confirm(scene, rotation) == "not_claimed"
    assert scene.rotation(rotation).claimable


def test_confirm_refuses_what_would_leave_no_key(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.hold(key=rotation.new_key_id)
    assert refused_confirm(scene, rotation) == "successor_not_working"
    scene.hold()
    assert refused_confirm(scene, rotation) == "account_held"
    scene.lift()
    scene.lift(key=rotation.new_key_id)
    scene.cancel(rotation)
    assert refused_confirm(scene, rotation) == "rotation_cancelled"


# 5.6: completed


def test_after_the_undo_window_the_old_key_is_deleted(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(7 * DAY - MINUTE)
    assert scene.advance() == 0
    assert scene.find_key(rotation.old_key_id).status == "retired"
    scene.later(MINUTE)
    assert scene.advance() == 1
    now = scene.rotation(rotation)
    assert (now.state, now.ended_at) == ("completed", scene.now())
    assert scene.find_key(rotation.old_key_id).status == "deleted"
    assert scene.find_key(rotation.new_key_id).status == "active"
    assert scene.events("key.deleted") == [rotation.old_key_id]
    assert len(scene.mails("rotation.completed")) == 1
    assert scene.advance() == 0


def test_a_new_rotation_of_the_family_ends_the_undo_window(scene: Scene) -> None:
    first = scene.retired()
    second = scene.request(first.new_key_id)
    assert second.state == "issued"
    assert second.family_id == first.family_id
    assert scene.rotation(first).state == "completed"
    assert scene.find_key(first.old_key_id).status == "deleted"
    assert scene.find_key(first.new_key_id).status == "active"


def test_audit_tells_the_whole_story(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(7 * DAY)
    scene.advance()
    assert scene.audited(rotation) == [
        ("rotation.issued", f"successor {rotation.new_key_id}"),
        ("rotation.claimed", "by the holder of the old key"),
        ("rotation.confirmed", "by use"),
        ("rotation.retired", "quiet"),
        ("rotation.completed", "undo_ended"),
    ]
    rows = scene.sql(
        "SELECT version, after FROM keyturn.audit WHERE key_id = :key AND version IS NOT NULL"
        " ORDER BY version",
        key=rotation.old_key_id,
    )
    assert [(row["version"], row["after"]) for row in rows] == [
        (1, "active"),
        (2, "retired"),
        (3, "deleted"),
    ]


# 5.7: unclaimed


def test_unclaimed_at_the_end_of_the_secret_the_successor_goes(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.later(72 * HOUR - MINUTE)
    assert scene.advance() == 0
    scene.later(MINUTE)
    assert scene.advance() == 1
    now = scene.rotation(rotation)
    assert (now.state, now.cancel_reason) == ("cancelled", "unclaimed")
    assert not now.claimable
    assert scene.find_key(rotation.new_key_id).status == "deleted"


def test_and_the_old_key_is_untouched_and_the_owner_told(scene: Scene) -> None:
    old = scene.key()
    before = scene.find_key(old)
    rotation = scene.request(old)
    scene.later(72 * HOUR)
    scene.advance()
    assert scene.find_key(old) == before
    [mail] = scene.told("rotation.cancelled")
    assert (mail["key"]["id"], mail["code"]) == (str(old), "unclaimed")
    assert mail["rotation_id"] == str(rotation.id)


def test_where_the_old_key_ends_first_the_secret_stays_to_the_successors_end(scene: Scene) -> None:
    old = scene.key(2 * DAY)
    rotation = scene.request(old)
    scene.later(2 * DAY - MINUTE)
    assert scene.advance() == 0
    assert rotation.claim_until == START + 2 * DAY
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(rotation).state == "cancelled"


def test_a_late_request_leaves_the_secret_its_whole_life(scene: Scene) -> None:
    old = scene.key(30 * DAY)
    scene.later(29 * DAY)
    rotation = scene.request(old)
    assert rotation.claim_until == scene.now() + 30 * DAY
    scene.later(10 * DAY)
    assert scene.advance() == 0
    assert scene.claimed(old).key_id == rotation.new_key_id


def test_an_old_key_deleted_before_the_claim_cancels(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.delete(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(rotation).cancel_reason == "old_key_deleted"
    assert scene.find_key(rotation.new_key_id).status == "deleted"


# cancel


def test_an_operator_cancels_what_is_not_in_use(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    cancelled = scene.cancel(rotation, "ticket 12")
    assert (cancelled.state, cancelled.cancel_reason) == ("cancelled", "operator: ticket 12")
    assert scene.find_key(rotation.new_key_id).status == "deleted"
    assert scene.find_key(rotation.old_key_id).status == "active"
    assert scene.cancel(rotation).cancel_reason == "operator: ticket 12"


def test_a_use_that_no_run_has_seen_yet_stops_the_cancelling(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    with pytest.raises(Refused) as refused:
        scene.cancel(rotation)
    assert refused.value.code == "already_confirmed"
    assert scene.find_key(rotation.new_key_id).status == "active"


def test_what_is_retired_cannot_be_cancelled(scene: Scene) -> None:
    with pytest.raises(Refused) as refused:
        scene.cancel(scene.retired())
    assert refused.value.code == "rotation_ended"


# advance, find, listed


@contextmanager
def broken(scene: Scene, key_id: UUID) -> Iterator[None]:
    """Every change of one key fails."""
    with scene.database.begin() as tx:
        tx.execute(
            "CREATE FUNCTION keyturn.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
        )
        tx.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON keyturn.api_keys FOR EACH ROW"
            f" WHEN (OLD.id = '{key_id}') EXECUTE FUNCTION keyturn.refuse()"
        )
    try:
        yield
    finally:
        with scene.database.begin() as tx:
            tx.execute("DROP FUNCTION keyturn.refuse() CASCADE")


def test_a_rotation_that_fails_stops_no_other(scene: Scene) -> None:
    bad, good = scene.request(scene.key()), scene.request(scene.key())
    scene.later(72 * HOUR)
    with broken(scene, bad.new_key_id):
        scene.advance()
    assert scene.rotation(good).state == "cancelled"
    failed = scene.rotation(bad)
    assert (failed.state, failed.blocked_reason) == ("issued", "step_failed")
    assert failed.next_check_at > scene.now()
    scene.later(MINUTE)
    scene.advance()
    assert scene.rotation(bad).state == "cancelled"


def test_more_than_a_batch_is_done_in_one_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotations, "BATCH", 3)
    asked = [scene.request(scene.key()) for _ in range(7)]
    scene.later(72 * HOUR)
    assert scene.advance() == 7
    assert {scene.rotation(rotation).state for rotation in asked} == {"cancelled"}


def test_find_and_listed(scene: Scene) -> None:
    first, second = scene.request(scene.key()), scene.request(scene.key())
    other = scene.request(scene.key(account=scene.account("bob@example.com")))
    scene.cancel(second)
    with scene.database.begin() as tx:
        assert {r.id for r in rotations.listed(tx)} == {first.id, second.id, other.id}
        assert [r.id for r in rotations.listed(tx, state="cancelled")] == [second.id]
        assert {r.id for r in rotations.listed(tx, account_id=scene.owner)} == {
            first.id,
            second.id,
        }
        assert rotations.find(tx, str(first.id)).name == "build"
        for name in (str(uuid4()), "nonsense", ""):
            with pytest.raises(Refused) as refused:
                rotations.find(tx, name)
            assert refused.value.code == "rotation_unknown"


def test_the_view_holds_no_sealed_bytes(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    assert not any(isinstance(value, bytes) for value in vars(rotation).values())


def test_second_sized_settings_go_the_whole_way(scene: Scene) -> None:
    second = timedelta(seconds=1)
    scene.policy = replace(
        scene.policy,
        rotation_min_life=60 * second,
        rotation_overlap=4 * second,
        rotation_quiet=2 * second,
        undo_for=3 * second,
    )
    rotation = scene.draining(120 * second)
    states = []
    for _ in range(8):
        scene.advance()
        states.append(scene.rotation(rotation).state)
        scene.later(second)
    assert states == ["draining"] * 4 + ["retired"] * 3 + ["completed"]


def test_operators_hear_of_what_was_cancelled_or_waits_for_a_person(scene: Scene) -> None:
    unclaimed, in_use = scene.request(scene.key()), scene.draining()
    scene.later(7 * DAY)
    scene.use(in_use.old_key_id)
    with scene.database.begin() as tx:
        attention = rotations.advance(tx, scene.policy).attention
    assert {(r.id, r.cancel_reason, r.blocked_reason) for r in attention} == {
        (unclaimed.id, "unclaimed", None),
        (in_use.id, None, "old_key_in_use"),
    }
    scene.later(DAY + HOUR - MINUTE)
    scene.use(in_use.old_key_id)
    scene.later(MINUTE)
    with scene.database.begin() as tx:
        again = rotations.advance(tx, scene.policy)
    assert (again.changed, again.attention) == (1, ())
