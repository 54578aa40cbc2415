"""What the owner is told of a rotation and when, and what the old key's uses look like."""

from dataclasses import replace
from datetime import timedelta

import pytest

from models import outbox, recording, rotation_letters
from models.messages import Outgoing
from models.rotation_policy import RotationPolicy
from models.rotations import Rotation
from tests.models.rotation_stages import blocked, claimed, unclaimed
from tests.models.scene import DAY, HOUR, MINUTE, START, Scene
from worker.channels.messages import mail


def use_from(scene: Scene, rotation: Rotation, ip: str, count: int = 1) -> None:
    """Uses of the old key from one address."""
    use = recording.Use(rotation.old_key_id, scene.now(), ip, count)
    with scene.database.begin() as tx:
        assert recording.record(tx, [use]) == 1


def test_the_owner_is_told_at_each_turn(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    scene.use(rotation.old_key_id)
    scene.advance()
    scene.later(HOUR)
    scene.advance()
    scene.later(25 * HOUR)
    scene.advance()
    scene.later(7 * DAY)
    scene.advance()
    kinds = [
        row["kind"]
        for row in scene.sql("SELECT kind FROM keyturn.outbox WHERE channel = 'mail' ORDER BY id")
    ]
    assert sorted(kinds) == [
        "rotation.blocked",
        "rotation.completed",
        "rotation.confirmed",
        "rotation.ending",
        "rotation.issued",
    ]


def test_at_confirmation_it_says_when_the_old_key_ends(scene: Scene) -> None:
    rotation = scene.draining()
    [told] = scene.mails("rotation.confirmed")
    [one] = told["rotations"]
    assert told["total"] == 1
    assert one["retire_at"] == (START + 7 * DAY).isoformat()
    assert (one["key"]["id"], one["successor"]["id"]) == (
        str(rotation.old_key_id),
        str(rotation.new_key_id),
    )


def test_an_operators_confirmation_is_told_too_and_once(scene: Scene) -> None:
    rotation = claimed(scene)
    for _ in range(2):
        scene.confirm(rotation)
        scene.advance()
    assert len(scene.mails("rotation.confirmed")) == 1


def test_a_day_before_it_says_who_still_uses_the_old_key(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(5 * DAY)
    use_from(scene, rotation, "192.0.2.7", 12)
    scene.later(DAY - MINUTE)
    scene.advance()
    assert scene.mails("rotation.ending") == []
    scene.later(MINUTE)
    for _ in range(3):
        scene.advance()
        scene.later(HOUR)
    [told] = scene.mails("rotation.ending")
    [one] = told["rotations"]
    assert one["key"]["id"] == str(rotation.old_key_id)
    assert (one["last_ip"], one["uses"]) == ("192.0.2.7", 12)
    assert one["last_used_at"] == (START + 5 * DAY).isoformat()
    assert one["retire_at"] == (START + 7 * DAY).isoformat()


def test_where_the_deadline_moves_it_is_told_anew(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(6 * DAY)
    scene.advance()
    scene.hold()
    scene.advance()
    scene.later(3 * DAY)
    scene.lift()
    scene.advance()
    assert len(scene.mails("rotation.ending")) == 1
    later = scene.rotation(rotation).retire_at
    assert later is not None
    scene.clock.move_to(later - 23 * HOUR)
    scene.advance()
    told = [mail["rotations"][0]["retire_at"] for mail in scene.mails("rotation.ending")]
    assert told == [(START + 7 * DAY).isoformat(), later.isoformat()]


@pytest.mark.parametrize("overlap", [HOUR, DAY])
def test_where_both_keys_work_for_a_day_or_less_nobody_is_warned(
    scene: Scene, overlap: timedelta
) -> None:
    scene.policy = replace(scene.policy, rotation_overlap=overlap)
    scene.draining()
    for _ in range(26):
        scene.later(HOUR)
        scene.advance()
    assert scene.mails("rotation.ending") == []
    assert len(scene.mails("rotation.confirmed")) == 1


def test_an_old_key_that_ends_within_a_day_is_not_announced(scene: Scene) -> None:
    scene.draining(20 * HOUR)
    scene.later(19 * HOUR)
    scene.advance()
    assert scene.mails("rotation.ending") == []


def test_one_message_names_all_rotations_of_a_run(scene: Scene) -> None:
    rotations = [claimed(scene) for _ in range(3)]
    for rotation in rotations:
        scene.use(rotation.new_key_id)
    scene.advance()
    [told] = scene.mails("rotation.confirmed")
    assert told["total"] == 3
    assert {one["rotation_id"] for one in told["rotations"]} == {str(r.id) for r in rotations}


# How often, and from where.


def test_draining_shows_last_use_how_often_and_from_where(scene: Scene) -> None:
    old = scene.key()
    scene.use(old)
    rotation = scene.request(old)
    assert (rotation.old_uses, rotation.uses_since) == (0, START)
    scene.later(HOUR)
    use_from(scene, rotation, "192.0.2.7", 5)
    assert scene.rotation(rotation).old_uses == 5
    scene.claimed(old)
    scene.use(rotation.new_key_id)
    scene.advance()
    scene.later(HOUR)
    use_from(scene, rotation, "2001:db8::7", 2)
    seen = scene.rotation(rotation)
    assert (seen.old_uses, seen.uses_since) == (2, START + HOUR)
    assert (seen.old_last_used_at, seen.old_last_ip) == (START + 2 * HOUR, "2001:db8::7")


def test_an_undo_counts_anew(scene: Scene) -> None:
    rotation = scene.draining()
    use_from(scene, rotation, "192.0.2.7", 5)
    scene.later(7 * DAY)
    scene.advance()
    scene.later(DAY)
    undone = scene.undo(rotation)
    assert (undone.old_uses, undone.uses_since) == (0, scene.now())


# A policy that does not wait.


def test_a_policy_may_retire_a_key_in_use_and_its_owner_is_told(scene: Scene) -> None:
    scene.policy = replace(
        scene.policy, rotation_policies={"default": RotationPolicy(in_use="retire")}
    )
    rotation = scene.draining()
    scene.later(7 * DAY - HOUR)
    use_from(scene, rotation, "192.0.2.7")
    scene.later(HOUR)
    scene.advance()
    retired = scene.rotation(rotation)
    assert (retired.state, retired.retired_at) == ("retired", scene.now())
    assert scene.mails("rotation.blocked") == []
    [told] = scene.told("rotation.retired")
    assert (told["last_ip"], told["uses"]) == ("192.0.2.7", 1)
    assert retired.undo_until is not None
    assert ("rotation.retired", "in_use") in scene.audited(rotation)
    assert scene.undo(rotation).state == "draining"


@pytest.mark.parametrize("table", ["api_keys", "accounts", "roles"])
def test_the_policy_of_a_key_its_account_or_role_decides(scene: Scene, table: str) -> None:
    strict = {"default": RotationPolicy(), "strict": RotationPolicy(in_use="retire")}
    scene.policy = replace(scene.policy, rotation_policies=strict)
    kept = scene.draining()
    chosen = scene.request(scene.key(account=scene.account("bob@example.com"), role="writer"))
    scene.claimed(chosen.old_key_id)
    scene.use(chosen.new_key_id)
    scene.advance()
    which = {"api_keys": "id = :key", "accounts": "id = :account", "roles": "name = 'writer'"}
    scene.sql(
        f"UPDATE keyturn.{table} SET rotation_policy = 'strict' WHERE {which[table]} RETURNING 1",
        **{"api_keys": {"key": chosen.old_key_id}, "accounts": {"account": chosen.account_id}}.get(
            table, {}
        ),
    )
    scene.later(7 * DAY)
    for rotation in (kept, chosen):
        scene.use(rotation.old_key_id)
    scene.advance()
    assert scene.rotation(kept).blocked_reason == "old_key_in_use"
    assert scene.rotation(chosen).state == "retired"


def test_no_policy_retires_a_key_where_uses_are_not_reported(scene: Scene) -> None:
    scene.policy = replace(
        scene.policy, rotation_policies={"default": RotationPolicy(in_use="retire")}
    )
    rotation = claimed(scene)
    scene.confirm(rotation)
    scene.later(8 * DAY)
    scene.advance()
    assert scene.rotation(rotation).blocked_reason == "uses_not_reported"


# Read again before it is sent.


def due(scene: Scene, kind: str) -> tuple[list[Outgoing], dict[str, str]]:
    """What of a kind would be sent now, and what is skipped."""
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, "mail", scene.policy).messages
        messages, skipped = rotation_letters.refresh(tx, leased, scene.policy)
    kinds = {message.id: message.kind for message in leased}
    return [m for m in messages if m.kind == kind], {
        kinds[id_]: why for id_, why in skipped.items()
    }


def test_what_is_still_true_is_sent_and_can_be_read(scene: Scene) -> None:
    rotation = scene.draining()
    scene.later(6 * DAY)
    scene.advance()
    [message], skipped = due(scene, "rotation.ending")
    assert skipped == {}
    made = mail(message, "keyturn@example.com")
    assert str(rotation.old_key_id) in made.get_content()


def test_nobody_hears_of_a_new_key_that_is_gone(scene: Scene) -> None:
    scene.cancel(unclaimed(scene))
    messages, skipped = due(scene, "rotation.issued")
    assert (messages, skipped) == ([], {"rotation.issued": "rotation_went_on"})


def test_nobody_is_warned_of_an_end_that_was_put_off(scene: Scene) -> None:
    scene.draining()
    scene.later(6 * DAY)
    scene.advance()
    scene.hold()
    scene.later(DAY)
    scene.lift()
    scene.advance()
    assert due(scene, "rotation.ending") == ([], {"rotation.ending": "rotation_went_on"})


def test_nobody_is_asked_about_what_is_decided(scene: Scene) -> None:
    rotation = blocked(scene)
    scene.confirm(rotation)
    assert due(scene, "rotation.blocked")[1] == {"rotation.blocked": "rotation_went_on"}


def test_of_several_only_those_that_still_hold_are_named(scene: Scene) -> None:
    rotations = [claimed(scene) for _ in range(3)]
    for rotation in rotations:
        scene.use(rotation.new_key_id)
    scene.advance()
    scene.delete(rotations[0].new_key_id)
    scene.advance()
    [message], _ = due(scene, "rotation.confirmed")
    assert message.payload["total"] == 2
    named = message.payload["rotations"]
    assert isinstance(named, list)
    assert str(rotations[0].id) not in {one["rotation_id"] for one in named}
