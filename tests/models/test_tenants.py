"""Tenants: one row holds every account of one, those that join later too."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from models import account_events, api_keys, creation, holds, inbox, key_text, settle
from models.base import Database, Step
from models.errors import NotFound, Refused
from models.events import AccountEvent, Action, Subject
from models.inbox import Source
from models.invariants import Tolerance, check
from models.policy import Policy
from models.tenants import Tenant
from models.tenants_desk import Tenants
from tests.eventually import eventually
from tests.world import ADA, EPOCH, World
from tests.world import event as about

BOB, CAROL = "bob@example.com", "carol@example.com"
DISABLED, ENABLED, DELETED = Action.DISABLED, Action.ENABLED, Action.DELETED
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
ACME = Subject(format="tenant", value="acme-1")
STRICT = Tolerance(settle=timedelta(0), event=timedelta(0))


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url)
    yield World(database)
    database.close()


@pytest.fixture
def desk(world: World) -> Tenants:
    return Tenants(world.database, world.policy, "op")


@pytest.fixture
def acme(desk: Tenants) -> Tenant:
    """A tenant that Okta calls `acme-1`."""
    return desk.create("Acme", known_as=[("okta", "acme-1")])


def event(action: Action, **facts: Any) -> AccountEvent:
    """An event about the tenant."""
    return about(action, subject=facts.pop("subject", ACME), **facts)


def member(world: World, desk: Tenants, email: str = ADA) -> tuple[Any, str]:
    """A key of an account that is in the tenant."""
    world.account(email)
    desk.assign(email, "Acme")
    return world.key(email)


def works(world: World, text: str) -> bool:
    return world.verify(text).valid


def audited(world: World, *actions: str) -> list[tuple[str, str, str]]:
    """Entries of these actions, in order: who, what, why."""
    with world.database.begin() as tx:
        rows = tx.rows(
            "SELECT actor, action, why FROM keyturn.audit WHERE action = ANY(:actions) ORDER BY id",
            actions=list(actions),
        )
    return [(row["actor"], row["action"], row["why"]) for row in rows]


def broken(world: World) -> dict[str, tuple[str, ...]]:
    return {
        one.name: one.rows
        for one in check(world.database, world.policy, full=True, tolerance=STRICT)
    }


@pytest.mark.usefixtures("acme")
def test_an_event_of_a_tenant_stops_every_member_by_one_row(world: World, desk: Tenants) -> None:
    ada, bob = member(world, desk), member(world, desk, BOB)
    world.account(CAROL)
    _, stranger = world.key(CAROL)
    world.receive(event(DISABLED))
    assert world.apply() == {"done": 1}
    verdict = world.verify(ada[1])
    assert (verdict.valid, verdict.reason) == (False, "account_held")
    assert not works(world, bob[1])
    assert works(world, stranger)
    with world.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.holds") == 1
        assert tx.scalar("SELECT count(*) FROM keyturn.accounts WHERE held") == 0
    assert world.status(ada[0]) == "active"  # settled in its time, never what decides
    assert world.settle() == 2
    assert (world.status(ada[0]), world.status(bob[0])) == ("disabled", "disabled")
    assert desk.get("Acme").held
    assert broken(world) == {}


@pytest.mark.usefixtures("acme")
def test_enabling_it_frees_the_members_and_lifts_nothing_else(world: World, desk: Tenants) -> None:
    ada, bob = member(world, desk), member(world, desk, BOB)
    world.receive(event(DISABLED, at=EPOCH), about(DISABLED, BOB, at=EPOCH))
    world.apply()
    world.settle()
    world.receive(event(ENABLED, at=EPOCH + MINUTE))
    assert world.apply() == {"done": 1}
    assert works(world, ada[1])
    assert not works(world, bob[1])
    world.settle()
    assert (world.status(ada[0]), world.status(bob[0])) == ("active", "disabled")
    assert broken(world) == {}


@pytest.mark.usefixtures("acme")
def test_an_accounts_own_enabled_does_not_lift_its_tenants_hold(
    world: World, desk: Tenants
) -> None:
    _, text = member(world, desk)
    world.receive(event(DISABLED, at=EPOCH), about(ENABLED, at=EPOCH + MINUTE))
    world.apply()
    assert not works(world, text)


def test_who_joins_later_is_held_and_who_leaves_is_free(
    world: World, desk: Tenants, acme: Tenant
) -> None:
    world.account()
    key, text = world.key()
    world.receive(event(DISABLED))
    world.apply()
    world.settle()
    assert works(world, text)
    assert desk.assign(ADA, "Acme")
    assert not works(world, text)
    assert world.settle() == 1
    assert world.status(key) == "disabled"
    with pytest.raises(Refused, match="held by okta/disabled of tenant Acme") as refused:
        world.key()
    assert refused.value.code == "account_held"
    assert not desk.assign(ADA, str(acme.id))
    assert desk.assign(ADA, None)
    assert works(world, text)
    assert world.settle() == 1
    assert world.status(key) == "active"
    assert audited(world, "account.joined", "account.left") == [
        ("op", "account.joined", "Acme"),
        ("op", "account.left", "Acme"),
    ]
    assert broken(world) == {}


def test_moved_to_another_tenant_it_is_held_as_that_one_is(world: World, desk: Tenants) -> None:
    desk.create("Acme")
    desk.create("Other")
    _, text = member(world, desk)
    desk.disable("Other")
    assert works(world, text)
    desk.assign(ADA, "Other")
    assert not works(world, text)
    desk.assign(ADA, "Acme")
    assert works(world, text)
    assert desk.get("Acme").members == 1


def test_an_unknown_tenants_event_waits_until_it_is_linked(world: World, desk: Tenants) -> None:
    world.receive(event(DISABLED, at=EPOCH))
    assert world.apply() == {"waiting_for_account": 1}
    with world.database.begin() as tx:
        [waiting] = inbox.listed(tx)
    assert waiting.reason == "no tenant has this name yet"
    desk.create("Acme")
    _, text = member(world, desk)
    assert works(world, text)
    desk.link("Acme", "okta", "acme-1")
    assert world.states() == ["done"]
    assert not works(world, text)
    assert audited(world, "tenant.linked") == [("op", "tenant.linked", "okta acme-1")]


def test_created_with_its_name_a_tenant_is_never_seen_without_what_waited(
    world: World, desk: Tenants
) -> None:
    world.receive(event(DISABLED))
    world.apply()
    assert desk.create("Acme", known_as=[("okta", "acme-1")]).held


def test_anothers_name_of_the_same_value_is_no_tenants(
    world: World, desk: Tenants, acme: Tenant
) -> None:
    """The value alone says nothing: not that of a user, nor that of another source's tenant."""
    _, text = member(world, desk)
    world.receive(about(DISABLED, subject=Subject(format="opaque", value="acme-1")))
    assert world.apply() == {"waiting_for_account": 1}
    world.receive(event(DISABLED), source="github")
    assert world.apply() == {"waiting_for_account": 1}
    assert works(world, text)
    desk.link("Acme", "github", "acme-1")
    assert world.states() == ["waiting_for_account", "done"]
    assert [hold.source for hold in desk.holds_of(acme.id)] == ["github"]
    assert not works(world, text)


@pytest.mark.usefixtures("acme")
def test_a_user_with_a_tenant_beside_it_is_a_user(world: World, desk: Tenants) -> None:
    _, text = member(world, desk)
    user = Subject(format="email", value=CAROL, aliases=(ACME,))
    world.receive(event(DISABLED, subject=user))
    assert world.apply() == {"waiting_for_account": 1}
    assert works(world, text)


@pytest.mark.usefixtures("acme")
def test_a_tenant_with_a_user_beside_it_is_a_tenant(world: World, desk: Tenants) -> None:
    _, text = member(world, desk)
    world.account(CAROL)
    both = ACME.model_copy(update={"aliases": (Subject(format="email", value=CAROL),)})
    world.receive(event(DISABLED, subject=both))
    assert world.apply() == {"done": 1}
    assert not works(world, text)
    _, other = world.key(CAROL)
    assert works(world, other)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.usefixtures("acme")
def test_a_tenants_events_are_ordered_as_an_accounts_are(
    world: World, desk: Tenants, order: tuple[int, ...]
) -> None:
    _, text = member(world, desk)
    history = [
        event(action, at=EPOCH + n * MINUTE, event_id=f"{n}")
        for n, action in enumerate((DISABLED, ENABLED, DISABLED))
    ]
    for n in order:
        world.receive(history[n])
        world.apply()
    assert not works(world, text)
    world.receive(event(ENABLED, at=EPOCH))
    assert world.apply() == {"stale": 1}
    assert not works(world, text)


@pytest.mark.usefixtures("acme")
def test_an_operator_lifts_one_hold_and_enable_lifts_no_compromise(
    world: World, desk: Tenants
) -> None:
    _, text = member(world, desk)
    desk.disable("Acme", "not paid")
    world.receive(event(DISABLED, at=EPOCH), event(Action.COMPROMISED, at=EPOCH))
    world.apply()
    assert desk.enable("Acme")
    assert not desk.enable("Acme")
    world.receive(event(ENABLED, at=EPOCH + MINUTE))
    world.apply()
    assert not works(world, text)
    assert desk.enable("Acme", source="okta", kind="compromised")
    assert works(world, text)
    entries = audited(world, "hold.placed", "hold.lifted")
    assert entries[0] == ("op", "hold.placed", "operator/disabled: not paid")
    assert [action for _, action, _ in entries].count("hold.lifted") == 3


@pytest.mark.usefixtures("acme")
def test_a_source_says_only_what_it_is_trusted_with(world: World, desk: Tenants) -> None:
    """Restrictive only: such a source holds a tenant, and lifts nothing."""
    _, text = member(world, desk)
    for action in (DISABLED, ENABLED):
        received = inbox.Received(f"{action}", event(action), {}, b"")
        source = Source("okta", "okta", frozenset({DISABLED}))
        world.database.run(lambda tx, one=received, by=source: inbox.accept(tx, by, [one]))  # type: ignore[misc]
        world.apply()
    assert world.states() == ["done", "parked"]
    assert not works(world, text)


@pytest.mark.usefixtures("acme")
def test_no_event_changes_what_names_a_tenant(world: World) -> None:
    renamed = Subject(format="email", value=CAROL)
    world.receive(about(Action.IDENTITY_CHANGED, subject=ACME, new=renamed))
    assert world.apply() == {"parked": 1}
    with world.database.begin() as tx:
        assert (inbox.listed(tx)[0].reason or "").startswith("not_supported")


@pytest.mark.parametrize("batch", [3, 5])
def test_members_are_settled_in_batches_and_a_change_in_the_middle_begins_anew(
    world: World, desk: Tenants, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    """Two members at a time, in one batch or two."""
    monkeypatch.setattr(settle, "MEMBERS", 2)
    world.policy = Policy(settle_batch=batch)
    desk.create("Acme")
    keys = []
    for n in range(5):
        keys.append(member(world, desk, f"user{n}@example.com")[0])
        keys.append(world.key(f"user{n}@example.com")[0])
    world.settle()

    def step() -> Step:
        return world.database.run(lambda tx: settle.tenants(tx, world.policy))

    desk.disable("Acme")
    changed = 0
    while changed < 4:
        changed += step().changed
    assert changed == 4
    assert [world.status(key) for key in keys].count("disabled") == 4
    desk.enable("Acme")
    assert world.settle() == 4
    assert {world.status(key) for key in keys} == {"active"}
    desk.disable("Acme")
    assert world.settle() == 10
    assert {world.status(key) for key in keys} == {"disabled"}
    assert step().finished
    assert broken(world) == {}
    with world.database.begin() as tx:
        reasons = tx.execute(
            "SELECT DISTINCT why FROM keyturn.audit WHERE after = 'disabled'"
        ).scalars()
        assert set(reasons) == {"tenant_held"}


def waiting(world: World) -> int:
    """How many sessions wait for a lock. Within one transaction the view would not change."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE wait_event_type = 'Lock' AND datname = current_database()
    """
    found: int = world.database.run(lambda tx: tx.scalar(query))
    return found


@pytest.mark.usefixtures("acme")
def test_a_key_that_is_just_being_made_is_settled_too(world: World, desk: Tenants) -> None:
    """Its transaction began before the hold, and ends after the members were looked at."""
    member(world, desk)
    world.settle()
    wanted, secret = creation.check("late", ADA, "viewer", 3600), key_text.mint("kt")
    with ThreadPoolExecutor() as pool:
        with world.database.begin() as tx:
            issued = api_keys.create(tx, wanted, actor="test", peppers=world.peppers, secret=secret)
            desk.disable("Acme")
            settling = pool.submit(world.settle)
            eventually(lambda: waiting(world))
        assert settling.result() == 2
    assert not works(world, secret.reveal())
    assert world.status(issued.id) == "disabled"


def test_an_unlinked_name_reaches_nobody(world: World, desk: Tenants, acme: Tenant) -> None:
    _, text = member(world, desk)
    desk.unlink("Acme", "okta", "acme-1")
    assert desk.known_as(acme.id) == []
    world.receive(event(DISABLED))
    assert world.apply() == {"waiting_for_account": 1}
    assert works(world, text)
    with pytest.raises(Refused) as refused:
        desk.unlink("Acme", "okta", "acme-1")
    assert refused.value.code == "identity_unknown"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Acme", "tenant_exists"),
        ("  ", "tenant_name_invalid"),
        ("a\nb", "tenant_name_invalid"),
        ("x" * 201, "tenant_name_invalid"),
        ("018f0000-0000-7000-8000-000000000000", "tenant_name_invalid"),
    ],
)
@pytest.mark.usefixtures("acme")
def test_names_that_a_tenant_cannot_have(desk: Tenants, name: str, code: str) -> None:
    with pytest.raises(Refused) as refused:
        desk.create(name)
    assert refused.value.code == code


@pytest.mark.usefixtures("acme")
def test_what_is_refused_says_what_to_do(world: World, desk: Tenants) -> None:
    with pytest.raises(NotFound, match="keyturn tenants create"):
        desk.get("Acne")
    desk.create("Other")
    with pytest.raises(Refused, match="names a tenant already"):
        desk.link("Other", "okta", "acme-1")
    for source, value in (("", "1"), ("okta", ""), ("okta", "x" * 600)):
        with pytest.raises(Refused) as refused:
            desk.link("Other", source, value)
        assert refused.value.code == "identity_invalid"
    world.account()
    with pytest.raises(NotFound):
        desk.assign(ADA, "Nobody")
    assert [one.name for one in desk.listed()] == ["Acme", "Other"]
    assert desk.listed(held=True) == []


@pytest.mark.usefixtures("acme")
def test_a_large_tenant_cut_by_a_source_is_an_alarm(world: World, desk: Tenants) -> None:
    for n in range(3):
        member(world, desk, f"user{n}@example.com")
    alarms: list[dict[str, object]] = []
    world.database.on_alarm = alarms.append
    policy = Policy(burst_accounts=2)
    world.receive(event(DELETED))
    claimed = world.database.run(lambda tx: account_events.claim(tx, policy))
    account_events.apply_claimed(world.database, claimed, policy, world.peppers)
    assert [alarm["alarm"] for alarm in alarms] == ["source_cuts_many"]
    with world.database.begin() as tx:
        assert tx.scalar("SELECT confirm FROM keyturn.holds")


def test_two_holds_are_written_down_once_each(world: World, desk: Tenants, acme: Tenant) -> None:
    assert desk.disable("Acme")
    assert not desk.disable("Acme")
    assert [(one.source, one.kind) for one in desk.holds_of(acme.id)] == [("operator", "disabled")]
    target = holds.on_tenant(acme.id)
    with world.database.begin() as tx:
        assert len(holds.standing(tx, target)) == 1
    assert len(audited(world, "hold.placed")) == 1
