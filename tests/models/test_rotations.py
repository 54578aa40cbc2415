"""Rotation from request to completion (rules 5.1, 5.2, 5.4 to 5.7) on a real database."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from freezegun import freeze_time

from models import roles, rotations
from models.base import Tx
from models.errors import Refused
from models.roles import Role
from models.rotations import Rotation
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, ROLES, START, Scene


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with freeze_time(START) as clock:
        made = Scene(database_url, clock)
        yield made
        made.database.close()


def keys_of_family(scene: Scene, rotation: Rotation) -> list[UUID]:
    rows = scene.sql(
        "SELECT id FROM keyturn.api_keys WHERE family_id = :family ORDER BY id",
        family=rotation.family_id,
    )
    return [row["id"] for row in rows]


# 5.2: issued


def test_successor_gets_name_role_ips_family_and_the_whole_life_anew(scene: Scene) -> None:
    old = scene.key(90 * DAY, name="ci", ips=["192.0.2.7"])
    scene.later(80 * DAY)
    rotation = scene.request(old)
    key = scene.find_key(rotation.new_key_id)
    assert rotation.state == "issued"
    assert (key.name, key.role, key.allowed_ips) == ("ci", "reader", ["192.0.2.7"])
    assert key.family_id == scene.find_key(old).family_id == old
    assert key.expires_at == scene.now() + 90 * DAY
    assert key.created_by == "op"


def test_both_keys_work_after_the_request(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    assert scene.find_key(rotation.old_key_id).status == "active"
    assert scene.find_key(rotation.new_key_id).status == "active"


def test_successor_secret_and_notice_commit_together_or_not_at_all(scene: Scene) -> None:
    old = scene.key()

    def request_and_fail(tx: Tx) -> None:
        scene.request_in(tx, old)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scene.database.run(request_and_fail)
    assert scene.sql("SELECT FROM keyturn.rotations") == []
    assert scene.mails("rotation.issued") == []
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == 1


def test_owner_is_told_which_keys_and_until_when_but_never_a_token(scene: Scene) -> None:
    rotation = scene.request(scene.key(name="ci"))
    claimed = scene.claimed(rotation.old_key_id)
    [mail] = scene.mails("rotation.issued")
    old, new = scene.find_key(rotation.old_key_id), scene.find_key(rotation.new_key_id)
    assert mail["account"] == OWNER
    assert mail["key"] == {
        "id": str(old.id),
        "name": "ci",
        "hint": old.hint,
        "expires_at": old.expires_at.isoformat(),
    }
    assert mail["successor"]["id"] == str(new.id)
    assert mail["claim_by"] == (START + 72 * HOUR).isoformat()
    everything = json.dumps(
        [dict(row) for row in scene.sql("SELECT * FROM keyturn.outbox")]
        + [dict(row) for row in scene.sql("SELECT * FROM keyturn.audit")],
        default=str,
    )
    for secret in (claimed.secret, scene.texts[old.id]):
        assert secret.reveal() not in everything


def test_the_secret_is_stored_only_sealed(scene: Scene) -> None:
    rotation = scene.request(scene.key())
    [row] = scene.sql("SELECT sealed FROM keyturn.rotations")
    secret = scene.claimed(rotation.old_key_id).secret
    assert secret.reveal().encode() not in row["sealed"]


@pytest.mark.parametrize(("life", "refused"), [(HOUR - timedelta(seconds=1), True), (HOUR, False)])
def test_keys_that_live_under_an_hour_do_not_rotate(
    scene: Scene, life: timedelta, refused: bool
) -> None:
    old = scene.key(life)
    if refused:
        assert code(scene, old) == "too_short_lived"
    else:
        assert scene.request(old).state == "issued"


def test_role_is_checked_again(scene: Scene) -> None:
    old = scene.key(role="writer")
    narrowed = ROLES | {"admin": Role("admin", ("read",))}
    with scene.database.begin() as tx:
        roles.sync(tx, narrowed)
    assert code(scene, old) == "role_not_allowed"


def test_role_is_never_widened(scene: Scene) -> None:
    old = scene.key(role="reader")
    assert scene.find_key(scene.request(old).new_key_id).role == "reader"


def code(scene: Scene, key_id: UUID, idempotency_key: str | None = None) -> str:
    keys = len(scene.sql("SELECT FROM keyturn.api_keys"))
    with pytest.raises(Refused) as refused:
        scene.request(key_id, idempotency_key)
    assert len(scene.sql("SELECT FROM keyturn.api_keys")) == keys
    return refused.value.code


def test_refuses_what_cannot_rotate(scene: Scene) -> None:
    assert code(scene, uuid4()) == "key_unknown"
    deleted, expired, held = scene.key(), scene.key(2 * HOUR), scene.key()
    scene.delete(deleted)
    assert code(scene, deleted) == "key_deleted"
    scene.later(2 * HOUR)
    assert code(scene, expired) == "key_expired"
    scene.hold(key=held)
    assert code(scene, held) == "key_held"
    scene.lift(key=held)
    scene.hold()
    assert code(scene, held) == "account_held"


def test_a_retired_key_does_not_rotate_again(scene: Scene) -> None:
    assert code(scene, scene.retired().old_key_id) == "key_held"


# 5.1: one open rotation, the same request


def test_the_same_idempotency_key_is_the_same_rotation(scene: Scene) -> None:
    old = scene.key()
    first = scene.request(old, "ticket-7")
    assert scene.request(old, "ticket-7").id == first.id
    assert len(keys_of_family(scene, first)) == 2
    assert len(scene.mails("rotation.issued")) == 1


def test_even_after_it_has_ended(scene: Scene) -> None:
    old = scene.key()
    first = scene.request(old, "ticket-7")
    scene.cancel(first)
    again = scene.request(old, "ticket-7")
    assert (again.id, again.state) == (first.id, "cancelled")


def test_an_idempotency_key_names_one_key(scene: Scene) -> None:
    scene.request(scene.key(), "ticket-7")
    assert code(scene, scene.key(), "ticket-7") == "idempotency_key_used"


def test_an_idempotency_key_of_another_account_is_another_one(scene: Scene) -> None:
    first = scene.request(scene.key(), "ticket-7")
    other = scene.key(account=scene.account("bob@example.com"))
    assert scene.request(other, "ticket-7").id != first.id


def test_any_request_while_one_is_open_is_that_one(scene: Scene) -> None:
    first = scene.request(scene.key(), "a")
    assert scene.request(first.old_key_id, "b").id == first.id
    assert scene.request(first.old_key_id).id == first.id
    assert scene.request(first.new_key_id).id == first.id
    assert len(keys_of_family(scene, first)) == 2


def test_a_request_after_an_unclaimed_one_ended_starts_anew(scene: Scene) -> None:
    first = scene.request(scene.key())
    scene.later(72 * HOUR)
    second = scene.request(first.old_key_id)
    assert second.id != first.id
    assert scene.rotation(first).state == "cancelled"
    assert scene.find_key(first.new_key_id).status == "deleted"


def test_the_database_refuses_a_second_open_rotation(scene: Scene) -> None:
    first = scene.request(scene.key())
    with pytest.raises(Exception, match="uq_rotations_open_family"):
        scene.sql(
            """
            INSERT INTO keyturn.rotations (id, account_id, family_id, old_key_id, new_key_id,
                state, requested_by, sealed_until, issued_at, next_check_at)
            SELECT :id, account_id, family_id, old_key_id, :key, 'issued', 'x', :at, :at, :at
            FROM keyturn.rotations RETURNING id
            """,
            id=uuid4(),
            key=first.old_key_id,
            at=scene.now(),
        )


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


# 5.5: retired


def test_the_old_key_is_retired_after_overlap_and_quiet(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - MINUTE)
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
    [mail] = scene.mails("rotation.blocked")
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
    assert [mail["code"] for mail in scene.mails("rotation.blocked")] == ["uses_not_reported"]
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
    [mail] = scene.mails("rotation.cancelled")
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


def test_a_rotation_that_fails_stops_no_other(scene: Scene) -> None:
    bad, good = scene.request(scene.key()), scene.request(scene.key())
    with scene.database.begin() as tx:
        tx.execute(
            "CREATE FUNCTION keyturn.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'broken'; END $$"
        )
        tx.execute(
            "CREATE TRIGGER broken BEFORE UPDATE ON keyturn.api_keys FOR EACH ROW"
            f" WHEN (OLD.id = '{bad.new_key_id}') EXECUTE FUNCTION keyturn.refuse()"
        )
    scene.later(72 * HOUR)
    scene.advance()
    assert scene.rotation(good).state == "cancelled"
    failed = scene.rotation(bad)
    assert (failed.state, failed.blocked_reason) == ("issued", "step_failed")
    assert failed.next_check_at > scene.now()
    with scene.database.begin() as tx:
        tx.execute("DROP TRIGGER broken ON keyturn.api_keys")
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


def test_second_sized_settings_go_the_whole_way(database_url: str) -> None:
    second = timedelta(seconds=1)
    with freeze_time(START) as clock:
        scene = Scene(database_url, clock)
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
        scene.database.close()
