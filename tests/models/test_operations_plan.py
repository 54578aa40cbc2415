"""Plans of bulk rotation: which keys they take, what they show, and when they can be applied."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from models import operations, roles
from models.errors import Refused
from models.operations import Selection
from models.rotation_policy import RotationPolicy
from tests.models.bulk import EVERYTHING, Bulk
from tests.models.scene import DAY, HOUR, MINUTE, ROLES, Scene


@pytest.fixture
def bulk(scene: Scene) -> Bulk:
    return Bulk(scene)


def taken(bulk: Bulk, selection: Selection) -> set[str]:
    return {row["name"] for row in bulk.rows(bulk.plan(selection)) if row["state"] == "waiting"}


def test_what_is_chosen_is_taken(scene: Scene, bulk: Bulk) -> None:
    bob = scene.account("bob@example.com")
    scene.key(name="old and short", life=100 * DAY)
    scene.later(90 * DAY)
    scene.key(name="new and short", life=10 * DAY)
    scene.key(name="new", account=bob)
    scene.key(name="writes", role="writer")
    assert taken(bulk, EVERYTHING) == {"old and short", "new and short", "new", "writes"}
    assert taken(bulk, Selection(account=bob)) == {"new"}
    assert taken(bulk, Selection(role="writer")) == {"writes"}
    assert taken(bulk, Selection(older_than=90 * DAY)) == {"old and short"}
    assert taken(bulk, Selection(older_than=90 * DAY + MINUTE)) == set()
    assert taken(bulk, Selection(expiring=10 * DAY)) == {"old and short", "new and short"}
    assert taken(bulk, Selection(expiring=10 * DAY - MINUTE)) == set()
    both = Selection(expiring=10 * DAY, older_than=DAY, everything=True)
    assert taken(bulk, both) == {"old and short"}
    assert taken(bulk, Selection(account=bob, role="writer")) == set()


def test_nothing_chosen_is_refused_with_the_choices(bulk: Bulk) -> None:
    with pytest.raises(Refused, match="--older-than.*--all") as refused:
        bulk.plan(Selection())
    assert refused.value.code == "nothing_chosen"
    with pytest.raises(Refused, match="choose one of: admin, reader, writer") as refused:
        bulk.plan(Selection(role="owner"))
    assert refused.value.code == "role_unknown"


def test_keys_that_must_not_have_a_successor_are_left_out_with_the_reason(
    scene: Scene, bulk: Bulk
) -> None:
    left_out: dict[UUID, str] = {}
    left_out[scene.key(HOUR - MINUTE)] = "too_short_lived"
    left_out[scene.key(HOUR)] = "key_expired"
    scene.delete(scene.key(name="deleted"))
    left_out[scene.key()] = "key_held"
    scene.hold(key=next(reversed(left_out)))
    rotation = scene.retired()
    left_out[rotation.old_key_id] = "replaced"
    left_out[scene.key(HOUR - MINUTE)] = "too_short_lived"
    draining = scene.draining()
    left_out[draining.old_key_id] = left_out[draining.new_key_id] = "in_rotation"
    left_out[scene.key(role="writer")] = "role_not_allowed"
    fits = scene.key()
    first = next(iter(left_out))
    left_out[first] = "key_expired"  # meanwhile
    with scene.database.begin() as tx:
        roles.sync(tx, ROLES | {"writer": replace(ROLES["writer"], grantable=False)})
    plan = bulk.plan()
    assert bulk.reasons(plan) == left_out | {fits: None, rotation.new_key_id: None}
    assert plan.keys == 2
    assert plan.left_out == {
        "in_rotation": 2,
        "key_expired": 2,
        "key_held": 1,
        "replaced": 1,
        "role_not_allowed": 1,
        "too_short_lived": 1,
    }
    with scene.database.begin() as tx:
        named = operations.unrotated(tx, plan.id)
    assert {one.key_id: one.reason for one in named} == left_out
    assert {one.state for one in named} == {"left_out"}


def test_a_role_that_grew_beyond_the_accounts_own_is_left_out(scene: Scene, bulk: Bulk) -> None:
    narrow = scene.account("bob@example.com", "reader")
    key = scene.key(account=narrow)
    wider = replace(ROLES["reader"], permissions=("read", "more"))
    assert bulk.reasons(bulk.plan()) == {key: None}
    with scene.database.begin() as tx:
        roles.sync(tx, ROLES | {"reader": wider, "narrow": replace(ROLES["reader"], name="narrow")})
        tx.execute("UPDATE keyturn.accounts SET role = 'narrow' WHERE id = :id", id=narrow)
    assert bulk.reasons(bulk.plan()) == {key: "role_not_allowed"}


def test_keys_of_a_held_account_are_left_out(scene: Scene, bulk: Bulk) -> None:
    key = scene.key()
    scene.hold()
    assert bulk.reasons(bulk.plan()) == {key: "account_held"}


def test_a_plan_says_what_it_would_do(scene: Scene) -> None:
    sinks = {"default": RotationPolicy(), "files": RotationPolicy(sink="file")}
    bulk = Bulk(scene, wave_keys=2, rotation_policies=sinks)
    bob, carol = scene.account("bob@example.com"), scene.account("carol@example.com")
    keys = [scene.key() for _ in range(3)] + [scene.key(account=bob)]
    special = scene.key(account=carol)
    with scene.database.begin() as tx:
        tx.execute("UPDATE keyturn.accounts SET rotation_policy = 'files' WHERE id = :id", id=bob)
        tx.execute(
            "UPDATE keyturn.api_keys SET rotation_policy = 'gone' WHERE id = :id", id=special
        )
        tx.execute("UPDATE keyturn.roles SET rotation_policy = 'files' WHERE name = 'reader'")
        tx.execute(
            "UPDATE keyturn.api_keys SET rotation_policy = 'default' WHERE id = :id", id=keys[0]
        )
    for key, ago in zip(keys, (7 * DAY, 24 * HOUR, 24 * HOUR - MINUTE), strict=False):
        with scene.database.begin() as tx:
            tx.execute(
                "UPDATE keyturn.key_uses SET first_used_at = :now - :ago,"
                " last_used_at = :now - :ago WHERE key_id = :key",
                ago=ago,
                key=key,
            )
    plan = bulk.plan()
    assert (plan.keys, plan.waves, plan.owners, plan.state) == (5, 3, 3, "planned")
    told = {(row["account_id"], row["wave"]) for row in bulk.rows(plan)}
    assert plan.messages == len(told) in (4, 5)
    assert (plan.used_24h, plan.used_7d) == (1, 2)
    assert plan.hand_overs == {"claim": 2, "file": 3}
    assert plan.left_out == {}
    assert plan.plan_until == scene.now() + 15 * MINUTE
    assert plan.selection == {"everything": True}
    assert scene.sql("SELECT FROM keyturn.rotations") == []


def test_owners_take_turns_and_what_ends_first_goes_first(scene: Scene) -> None:
    bob = scene.account("bob@example.com")
    for number in range(4):
        scene.key((60 - number) * DAY, name=f"ada {number}")
    for number in range(2):
        scene.key((60 + number) * DAY, account=bob, name=f"bob {number}")
    rows = Bulk(scene, wave_keys=4)
    plan = rows.plan()
    turns = [["ada 3", "bob 0"], ["ada 2", "bob 1"]]
    if UUID(str(bob)) < UUID(str(scene.owner)):  # both were made at one time: their ids decide
        turns = [turn[::-1] for turn in turns]
    assert [(row["wave"], row["name"]) for row in rows.rows(plan)] == [
        *((1, name) for turn in turns for name in turn),
        *((2, "ada 1"), (2, "ada 0")),
    ]


def test_an_owner_with_very_many_keys_starves_nobody(scene: Scene, bulk: Bulk) -> None:
    owners = [scene.account(f"owner{n}@example.com") for n in range(5)]
    with scene.database.begin() as tx:
        tx.execute(
            """
            INSERT INTO keyturn.api_keys (id, account_id, name, created_by, role, digest, scheme,
                hint, family_id, created_at, expires_at)
            SELECT id, :account, 'many', 'test', 'reader', sha256(CAST(id::text AS bytea)), 's',
                'abcd', id, :now, :now + interval '1 day'
            FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 10000)) ids
            """,
            account=scene.owner,
        )
    for owner in owners:
        scene.key(account=owner, name="one")
    plan = bulk.plan()
    assert (plan.keys, plan.waves) == (10_005, 401)
    first = [row["name"] for row in bulk.rows(plan) if row["wave"] == 1]
    assert first.count("one") == 5


def test_a_plan_is_applied_once_however_often_it_is_asked_for(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.plan()
    applied = bulk.apply(plan)
    assert (applied.state, applied.applied_by, applied.applied_at) == ("running", "op", scene.now())
    scene.later(HOUR)
    assert bulk.apply(plan).applied_at == applied.applied_at
    bulk.work()
    assert bulk.find(plan).state == "completed"
    assert bulk.apply(plan).state == "completed"
    audited = scene.sql(
        "SELECT action, why FROM keyturn.audit WHERE action LIKE 'operation.%' ORDER BY id"
    )
    assert [tuple(row.values()) for row in audited] == [
        ("operation.applied", f"1 keys, 1 waves (operation {plan.id})"),
        ("operation.completed", f"1 waves (operation {plan.id})"),
    ]


def test_a_plan_ends(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.plan()
    scene.later(15 * MINUTE - timedelta(seconds=1))
    assert bulk.find(plan).state == "planned"
    scene.later(timedelta(seconds=1))
    assert bulk.find(plan).state == "expired"
    assert bulk.refusal(bulk.apply, plan).code == "plan_expired"
    assert bulk.refusal(bulk.cancel, plan).code == "plan_ended"
    assert bulk.work() == 0


def test_a_plan_that_is_empty_or_unknown_is_not_applied(scene: Scene, bulk: Bulk) -> None:
    plan = bulk.plan()
    assert bulk.refusal(bulk.apply, plan).code == "plan_empty"
    for name in (str(scene.owner), "nonsense"):
        with scene.database.begin() as tx, pytest.raises(Refused) as refused:
            operations.apply(tx, name, actor="op", policy=bulk.policy)
        assert refused.value.code == "plan_unknown"


def test_a_plan_that_grew_by_too_much_is_planned_again(scene: Scene, bulk: Bulk) -> None:
    for _ in range(40):
        scene.key()
    plan = bulk.plan(Selection(role="reader"))
    scene.key(role="writer")
    scene.key()
    scene.key()  # 5 %
    assert scene.database.run(lambda tx: operations.check(tx, str(plan.id), bulk.policy)) == plan
    scene.key()
    refused = bulk.refusal(bulk.apply, plan)
    assert refused.code == "plan_grew"
    assert "3 keys were added to its 40 (7.5%; at most 5.0% may be)" in refused.message
    assert "keyturn rotations plan" in refused.message


def test_keys_that_fit_since_are_growth_too_and_those_that_went_do_not_make_up_for_them(
    scene: Scene, bulk: Bulk
) -> None:
    held, first = scene.key(), scene.key()
    scene.hold(key=held)
    plan = bulk.plan()
    assert plan.keys == 1
    scene.lift(key=held)
    scene.delete(first)
    assert bulk.refusal(bulk.apply, plan).code == "plan_grew"


def test_keys_that_were_added_within_bounds_are_not_rotated(scene: Scene) -> None:
    bulk = Bulk(scene, plan_growth=1.0)
    planned = scene.key()
    plan = bulk.plan()
    added = scene.key()
    bulk.apply(plan)
    bulk.work()
    rotated = scene.sql("SELECT old_key_id FROM keyturn.rotations")
    assert [row["old_key_id"] for row in rotated] == [planned] != [added]


def test_ended_operations_and_old_plans_are_forgotten(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    lapsed, done = bulk.plan(), bulk.applied()
    bulk.work()
    running = bulk.applied(Selection(account=scene.owner)) if scene.key() else None

    def forget() -> int:
        return scene.database.run(lambda tx: operations.forget(tx, bulk.policy))

    scene.later(DAY + 15 * MINUTE)
    assert forget() == 0
    scene.later(MINUTE)
    assert (forget(), forget()) == (1, 0)
    scene.later(30 * DAY)
    assert (forget(), forget()) == (1, 0)
    with scene.database.begin() as tx:
        left = operations.listed(tx)
    assert running is not None
    assert [one.id for one in left] == [running.id]
    assert scene.sql("SELECT DISTINCT operation_id AS id FROM keyturn.operation_keys") == [
        {"id": running.id}
    ]
    assert lapsed.id != done.id
