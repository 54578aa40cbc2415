"""What a request for a successor gives: one rotation, one new key, one mail (rules 5.1, 5.2)."""

import json
from dataclasses import replace
from datetime import timedelta
from uuid import UUID, uuid4

import pytest

from models import roles, rotation_requests, rotation_rows
from models.base import Tx
from models.errors import Refused
from models.roles import Role
from models.rotations import Rotation
from tests.models.scene import DAY, HOUR, OWNER, ROLES, START, Scene


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


def test_what_the_statement_says_that_begins_it_is_what_is_there_then(scene: Scene) -> None:
    old = scene.key(ips=["192.0.2.7"])
    scene.use(old)
    scene.later(HOUR)
    rotation = scene.request(old)
    with scene.database.begin() as tx:
        assert rotation_rows.one(tx, rotation.id) == rotation


@pytest.mark.parametrize("grantable", [True, False])
@pytest.mark.parametrize("own", ["writer", "reader", "nobody"])
@pytest.mark.parametrize("role", ["writer", "reader", "nobody"])
def test_a_look_at_a_key_judges_its_role_as_a_creation_does(
    scene: Scene, role: str, own: str, grantable: bool
) -> None:
    key = scene.key()
    made = {**ROLES, "nobody": Role("nobody", ())}
    with scene.database.begin() as tx:
        roles.sync(tx, {**made, role: replace(made[role], grantable=grantable)})
        tx.execute("UPDATE keyturn.accounts SET role = :own", own=own)
        tx.execute("UPDATE keyturn.api_keys SET role = :role", role=role)
        looked = rotation_requests.look(tx, key).role_allowed
        try:
            roles.check_grant(tx, role, scene.owner)
        except Refused:
            assert not looked
        else:
            assert looked


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
    [letter], [mail] = scene.mails("rotation.issued"), scene.told("rotation.issued")
    old, new = scene.find_key(rotation.old_key_id), scene.find_key(rotation.new_key_id)
    assert (letter["account"], letter["total"]) == (OWNER, 1)
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


def test_a_retired_key_has_its_rotation_and_gets_no_second_one(scene: Scene) -> None:
    retired = scene.retired()
    assert scene.request(retired.old_key_id).id == retired.id
    assert len(keys_of_family(scene, retired)) == 2


def test_an_expired_key_that_was_rotated_has_its_rotation(scene: Scene) -> None:
    rotation = scene.draining(2 * DAY)
    scene.later(2 * DAY)
    scene.advance()
    again = scene.request(rotation.old_key_id)
    assert (again.id, again.state) == (rotation.id, "completed")
    assert len(keys_of_family(scene, rotation)) == 2


def test_a_deleted_key_that_was_rotated_is_refused_as_deleted(scene: Scene) -> None:
    rotation = scene.retired()
    scene.later(scene.policy.undo_for)
    scene.advance()
    assert code(scene, rotation.old_key_id) == "key_deleted"


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


@pytest.mark.parametrize("text", ["", "x" * 201, "x" * 10_000, "a\nb", "a\0b", "a\ud800b"])
def test_an_idempotency_key_that_cannot_be_kept_or_is_empty_is_refused(
    scene: Scene, text: str
) -> None:
    assert code(scene, scene.key(), text) == "idempotency_key_invalid"


def test_an_idempotency_key_may_be_long(scene: Scene) -> None:
    old, text = scene.key(), "\U0001d4d0" * 200
    assert scene.request(old, text).id == scene.request(old, text).id


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
