"""What a tenant's hold does to members besides `verify`: rotations, imports, deletion."""

from collections.abc import Iterator

import pytest

from models import account_imports, deletions, settle
from models.account_imports import AccountRow
from models.errors import Refused
from models.events import Action, Subject
from models.imports import Outcome
from models.policy import Policy
from models.tenants_desk import Tenants
from tests.models.scene import DAY, HOUR, OWNER, Scene, frozen_scene
from tests.world import World, event

ACME = Subject(format="tenant", value="42")
BOB = "bob@example.com"


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with frozen_scene(database_url) as made:
        desk(made).create("Acme", known_as=[("okta", "42")])
        yield made


def desk(scene: Scene) -> Tenants:
    return Tenants(scene.database, scene.policy, "op")


def world(scene: Scene) -> World:
    return World(scene.database, scene.policy, scene.peppers)


def say(scene: Scene, action: Action) -> None:
    """An event about the tenant, applied and settled."""
    world(scene).receive(event(action, subject=ACME, at=scene.now()))
    assert world(scene).apply() == {"done": 1}
    world(scene).settle()


def test_a_rotation_stands_still_while_the_tenant_is_held(scene: Scene) -> None:
    desk(scene).assign(OWNER, "Acme")
    rotation = scene.draining()
    before = rotation.retire_at
    say(scene, Action.DISABLED)
    assert scene.advance() == 1
    held = scene.rotation(rotation)
    assert (held.account_held, held.paused_at) == (True, scene.now())
    scene.later(3 * DAY)
    say(scene, Action.ENABLED)
    scene.later(HOUR)
    assert scene.advance() == 1
    resumed = scene.rotation(rotation)
    assert (resumed.account_held, resumed.paused_at) == (False, None)
    assert before
    assert resumed.retire_at == before + 3 * DAY


def test_an_unclaimed_successor_goes_with_the_tenants_hold(scene: Scene) -> None:
    desk(scene).assign(OWNER, "Acme")
    rotation = scene.request(scene.key())
    say(scene, Action.DISABLED)
    assert scene.refusal(rotation.old_key_id) == "account_held"
    scene.advance()
    assert not scene.rotation(rotation).claimable
    with pytest.raises(Refused) as refused:
        scene.request(scene.key())
    assert refused.value.code == "account_held"
    scene.later(HOUR)
    say(scene, Action.ENABLED)
    scene.advance()
    assert scene.rotation(rotation).cancel_reason == "account_held"


def test_the_pause_of_who_leaves_ends_when_it_leaves(scene: Scene) -> None:
    desk(scene).assign(OWNER, "Acme")
    rotation = scene.draining()
    say(scene, Action.DISABLED)
    scene.advance()
    scene.later(2 * DAY)
    desk(scene).assign(OWNER, None)
    scene.later(HOUR)
    scene.advance()
    resumed = scene.rotation(rotation)
    assert rotation.retire_at
    assert resumed.retire_at == rotation.retire_at + 2 * DAY


def test_the_pause_of_who_joins_begins_when_it_joins(scene: Scene) -> None:
    rotation = scene.draining()
    say(scene, Action.DISABLED)
    scene.later(DAY)
    desk(scene).assign(OWNER, "Acme")
    scene.advance()
    assert scene.rotation(rotation).paused_at == scene.now()


def test_a_hold_from_before_it_joined_is_no_pause(scene: Scene) -> None:
    rotation = scene.draining()
    say(scene, Action.DISABLED)
    scene.later(HOUR)
    say(scene, Action.ENABLED)
    desk(scene).assign(OWNER, "Acme")
    scene.advance()
    assert scene.rotation(rotation).retire_at == rotation.retire_at


def delete_due(scene: Scene) -> int:
    deleted = 0
    while not (step := scene.database.run(lambda tx: deletions.step(tx, scene.policy))).finished:
        deleted += step.changed
    return deleted


def test_a_deleted_tenants_members_lose_their_keys_after_the_delay(scene: Scene) -> None:
    late = scene.key(account=scene.account(BOB))
    key = scene.key()
    desk(scene).assign(OWNER, "Acme")
    scene.later(HOUR)
    say(scene, Action.DELETED)
    scene.later(HOUR)
    desk(scene).assign(BOB, "Acme")
    world(scene).settle()
    scene.later(scene.policy.deletion_delay - 2 * HOUR)
    assert delete_due(scene) == 0
    scene.later(2 * HOUR)
    assert delete_due(scene) == 1
    assert scene.find_key(key).status == "deleted"
    assert scene.find_key(late).status == "disabled"  # who came later is held, and keeps its keys
    assert delete_due(scene) == 0
    [row] = scene.sql("SELECT carried_out_at IS NOT NULL AS done FROM keyturn.holds")
    assert row["done"]


def test_a_lifted_deletion_deletes_nothing(scene: Scene) -> None:
    key = scene.key()
    desk(scene).assign(OWNER, "Acme")
    scene.later(HOUR)
    say(scene, Action.DELETED)
    assert desk(scene).enable("Acme", source="okta", kind="deleted")
    scene.later(scene.policy.deletion_delay + HOUR)
    assert delete_due(scene) == 0
    world(scene).settle()
    assert scene.find_key(key).status == "active"


def bring(scene: Scene, *rows: AccountRow, update: bool = False) -> list[Outcome]:
    return scene.database.run(
        lambda tx: account_imports.batch(
            tx, rows, update=update, rehearsal=None, actor="op", policy=Policy()
        )
    )


def test_accounts_are_imported_into_their_tenant(scene: Scene) -> None:
    say(scene, Action.DISABLED)
    done = bring(
        scene,
        AccountRow(1, BOB, "reader", tenant="Acme"),
        AccountRow(2, "carol@example.com", "reader", tenant="Acne"),
    )
    assert [(one.did, one.code) for one in done] == [("created", ""), ("refused", "tenant_unknown")]
    assert [one.email for one in desk(scene).members("Acme")] == [BOB]
    assert desk(scene).members("Acme")[0].held


def test_an_import_moves_an_account_only_if_told_to(scene: Scene) -> None:
    key = scene.key()
    desk(scene).create("Other")
    say(scene, Action.DISABLED)
    [left_alone] = bring(scene, AccountRow(1, OWNER, tenant="Acme"))
    assert left_alone.did == "differs"
    [moved] = bring(scene, AccountRow(1, OWNER, tenant="Acme"), update=True)
    assert moved.did == "updated"
    world(scene).settle()
    assert scene.find_key(key).status == "disabled"
    bring(scene, AccountRow(1, OWNER, tenant="Other"), update=True)
    [same] = bring(scene, AccountRow(1, OWNER), update=True)
    assert same.did == "unchanged"
    world(scene).settle()
    assert scene.find_key(key).status == "active"
    entries = scene.sql(
        "SELECT action, why FROM keyturn.audit WHERE action IN ('account.joined', 'account.left')"
        " ORDER BY id"
    )
    assert [(row["action"], row["why"]) for row in entries] == [
        ("account.joined", "Acme"),
        ("account.left", "Acme"),
        ("account.joined", "Other"),
    ]


def test_a_key_made_while_the_tenant_is_held_cannot_be(scene: Scene) -> None:
    """Not by an import either: the key is there, and stopped by the same transaction."""
    desk(scene).assign(OWNER, "Acme")
    say(scene, Action.DISABLED)
    key = scene.key()  # stored behind everybody's back
    with scene.database.begin() as tx:
        assert settle.keys(tx, [key], actor="op", why="key_held", policy=scene.policy) == 1
    assert scene.find_key(key).status == "disabled"
