"""Accounts that a product has come in by the batch, once, with the events that waited for them."""

import threading
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from models import account_imports, accounts, imports, invariants
from models.account_imports import AccountRow
from models.accounts import Identity, Link
from models.base import Database, Tx
from models.events import Action, Subject
from models.grants import OPS
from models.imports import Outcome
from models.rehearsal import Rehearsal
from tests.eventually import eventually
from tests.roles import make_roles, own_cluster, url_of
from tests.world import ADA, World, event

BOB, EVE = "bob@example.com", "eve@example.com"


def okta(value: str) -> Subject:
    return Subject(format="opaque", issuer="okta", value=value)


@pytest.fixture
def world(database_url: str) -> World:
    made = World(Database(database_url))
    made.account("first@example.com", okta("u0"))
    return made


def bring(world: World, *rows: AccountRow, **options: Any) -> list[Outcome]:
    def batch(tx: Tx, part: Any) -> list[Outcome]:
        said: dict[str, Any] = {"update": False, "rehearsal": None, **options}
        return account_imports.batch(tx, part, actor="op", policy=world.policy, **said)

    return imports.run(world.database, rows, batch)


def did(world: World, *rows: AccountRow, **options: Any) -> list[str]:
    return [one.code or one.did for one in bring(world, *rows, **options)]


def names(world: World, email: str) -> set[tuple[str, str]]:
    with world.database.begin() as tx:
        found = accounts.identities(tx, accounts.find(tx, email).id)
    return {(one.issuer, one.value) for one in found}


def counted(world: World, table: str) -> int:
    with world.database.begin() as tx:
        number: int = tx.scalar(f"SELECT count(*) FROM keyturn.{table}")
    return number


def test_accounts_come_in_with_their_identities(world: World) -> None:
    born = datetime(2020, 1, 2, tzinfo=UTC)
    rows = [
        AccountRow(2, ADA, "member", "Ada", born, (okta("u1"),)),
        AccountRow(3, BOB, "viewer"),
    ]
    assert did(world, *rows) == ["created", "created"]
    with world.database.begin() as tx:
        ada, bob = accounts.find(tx, ADA), accounts.find(tx, BOB)
        linked = tx.execute("SELECT min(linked_at) FROM keyturn.account_identities").scalar()
        entries = tx.rows("SELECT * FROM keyturn.audit WHERE account_id = :id", id=ada.id)
    assert (ada.name, ada.role, ada.created_at) == ("Ada", "member", born)
    assert (bob.name, bob.role) == ("", "viewer")
    assert names(world, ADA) == {("", ADA), ("okta", "u1")}
    assert linked is not None
    assert linked > born  # rule 2.6: nobody says whose address it was before
    assert [(one["actor"], one["action"], one["why"]) for one in entries] == [
        ("op", "account.created", "imported")
    ]


def test_again_it_changes_nothing(world: World) -> None:
    rows = [AccountRow(n, f"a{n}@example.com", "member", "A", None, (okta(f"v{n}"),))
            for n in range(20)]  # fmt: skip
    assert set(did(world, *rows)) == {"created"}
    before = {table: counted(world, table) for table in ("audit", "accounts", "account_identities")}
    assert set(did(world, *rows, update=True)) == {"unchanged"}
    assert {table: counted(world, table) for table in before} == before


def test_a_dry_run_says_the_same_and_writes_nothing(world: World) -> None:
    rows = [AccountRow(1, ADA, "member"), AccountRow(2, BOB, "king"), AccountRow(3, EVE, "viewer")]
    assert did(world, *rows, rehearsal=Rehearsal()) == ["created", "role_unknown", "created"]
    assert counted(world, "accounts") == 1
    assert did(world, *rows) == ["created", "role_unknown", "created"]


LINES = st.builds(
    AccountRow,
    st.just(0),
    st.sampled_from([ADA, BOB, "first@example.com"]),
    st.sampled_from(["member", "viewer", "king", None]),
    st.sampled_from(["A", "B", None]),
    identities=st.lists(st.sampled_from([okta(f"u{n}") for n in range(4)]), max_size=2).map(tuple),
)


def test_a_dry_run_in_batches_says_what_the_import_does(world: World) -> None:
    """Its batches know of each other, though none is written."""

    @settings(
        max_examples=40,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.lists(LINES, min_size=2, max_size=9), st.integers(1, 3), st.booleans())
    def same(lines: list[AccountRow], size: int, update: bool) -> None:
        with world.database.begin() as tx:
            tx.execute("DELETE FROM keyturn.account_identities WHERE value <> 'first@example.com'")
            tx.execute("DELETE FROM keyturn.accounts WHERE email <> 'first@example.com'")
        rows = [replace(one, line=number) for number, one in enumerate(lines, 2)]
        batches = [rows[start : start + size] for start in range(0, len(rows), size)]
        rehearsal = Rehearsal()
        would = [did(world, *part, update=update, rehearsal=rehearsal) for part in batches]
        assert would == [did(world, *part, update=update) for part in batches]
        rehearsal.close()

    same()


def test_a_line_may_change_the_account_that_a_line_before_it_adds(world: World) -> None:
    rows = [AccountRow(2, ADA, "member", "Ada"), AccountRow(3, ADA, "viewer", "Ada L.")]
    assert did(world, *rows, update=True) == ["created", "account_updated"]
    with world.database.begin() as tx:
        ada = accounts.find(tx, ADA)
    assert (ada.name, ada.role) == ("Ada L.", "viewer")
    assert did(world, *rows[1:], update=True) == ["unchanged"]


def test_other_facts_are_told_and_changed_only_on_demand(world: World) -> None:
    bring(world, AccountRow(1, ADA, "member", "Ada"))
    changed = AccountRow(7, ADA, "viewer", "Ada L.", None, (okta("u1"),))
    [told] = bring(world, changed)
    assert (told.line, told.did, told.code) == (7, "differs", "account_differs")
    assert "role 'member' -> 'viewer'" in told.message
    assert "okta u1" in told.message
    assert names(world, ADA) == {("", ADA)}
    assert did(world, changed, update=True) == ["account_updated"]
    with world.database.begin() as tx:
        ada = accounts.find(tx, ADA)
        entries = tx.rows(
            "SELECT action, why FROM keyturn.audit WHERE account_id = :id ORDER BY id", id=ada.id
        )
    assert (ada.name, ada.role) == ("Ada L.", "viewer")
    assert names(world, ADA) == {("", ADA), ("okta", "u1")}
    assert [one["action"] for one in entries] == [
        "account.created",
        "account.changed",
        "account.linked",
    ]
    assert did(world, changed) == ["unchanged"]


def test_what_a_line_does_not_say_stays(world: World) -> None:
    bring(world, AccountRow(1, ADA, "member", "Ada"))
    assert did(world, AccountRow(1, ADA), update=True) == ["unchanged"]


def test_a_line_that_names_an_account_again_changes_it_like_any_other(world: World) -> None:
    rows = [AccountRow(1, ADA, "member", "A"), AccountRow(2, ADA, "member", "B")]
    assert did(world, *rows) == ["created", "account_differs"]
    rows = [AccountRow(1, ADA, name="C", role="viewer"), AccountRow(2, ADA, name="D")]
    assert did(world, *rows, update=True) == ["account_updated", "account_updated"]
    with world.database.begin() as tx:
        found = accounts.find(tx, ADA)
    assert (found.name, found.role) == ("D", "viewer")


@pytest.mark.parametrize(
    ("row", "code"),
    [
        (AccountRow(1, ADA), "role_missing"),
        (AccountRow(1, ADA, "king"), "role_unknown"),
        (AccountRow(1, ADA, "member", identities=(okta("u0"),)), "identity_taken"),
        (AccountRow(1, "first@example.com", identities=(okta("u9"),)), "identity_taken"),
        (
            AccountRow(1, ADA, "member", created_at=datetime.now(UTC) + timedelta(days=1)),
            "created_in_future",
        ),
    ],
)
def test_a_bad_line_is_refused_and_the_others_go_on(
    world: World, row: AccountRow, code: str
) -> None:
    bring(world, AccountRow(1, EVE, "member", identities=(okta("u9"),)))
    before = counted(world, "account_identities")
    [told, good] = bring(world, row, AccountRow(2, BOB, "member"))
    assert (told.line, told.did, told.code) == (1, "refused", code)
    assert good.did == "created"
    assert counted(world, "account_identities") == before + 1  # nothing of the refused one


def test_an_address_that_was_unlinked_does_not_name_its_account_again(world: World) -> None:
    with world.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.account_identities SET unlinked_at = :now WHERE format = 'email'"
        )
    row = AccountRow(1, "first@example.com", "member", "somebody else", None, (okta("new"),))
    assert did(world, row, update=True) == ["address_unlinked"]


def test_waiting_events_apply_with_the_import(world: World) -> None:
    world.receive(event(Action.DISABLED, ADA))
    world.receive(event(Action.DISABLED, subject=okta("u2")))
    world.receive(event(Action.DISABLED, "nobody@example.com"))
    world.apply()
    assert world.states() == ["waiting_for_account"] * 3
    rows = [AccountRow(1, ADA, "member"), AccountRow(2, BOB, "member", identities=(okta("u2"),)),
            AccountRow(3, EVE, "member")]  # fmt: skip
    bring(world, *rows)
    # Held, and shown to a person: an address may have been somebody else's before (rule 2.6).
    assert world.states() == ["parked", "done", "waiting_for_account"]
    with world.database.begin() as tx:
        assert [accounts.find(tx, one).held for one in (ADA, BOB, EVE)] == [True, True, False]
    world.settle()
    assert not invariants.check(world.database, world.policy, full=True)


def test_an_event_that_misses_at_the_same_time_waits_for_the_import_to_be_seen(
    world: World, database_url: str
) -> None:
    """Rule 2.6: whoever comes second looks again under the lock: neither misses the other."""
    other = Database(database_url)
    world.receive(event(Action.DISABLED, ADA))
    with world.database.begin() as tx:
        account_imports.batch(
            tx, [AccountRow(1, ADA, "member")], update=False, rehearsal=None, actor="op",
            policy=world.policy,
        )  # fmt: skip
        applying = threading.Thread(target=world.apply)
        applying.start()
        eventually(lambda: _waits_for_advisory_lock(other))
    applying.join(timeout=30)
    other.close()
    with world.database.begin() as tx:
        assert accounts.find(tx, ADA).held


def _waits_for_advisory_lock(database: Database) -> bool:
    with database.begin() as tx:
        found: bool = tx.scalar(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        )
    return found


def test_two_imports_of_the_same_accounts_at_once_make_each_once(world: World) -> None:
    rows = [AccountRow(n, f"a{n}@example.com", "member", "A", None, (okta(f"v{n}"),))
            for n in range(200)]  # fmt: skip
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda part: found.append(did(world, *part)), args=(part,))
        for part in (rows, rows[::-1])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert sorted(one for part in found for one in part) == ["created"] * 200 + ["unchanged"] * 200
    assert counted(world, "accounts") == 201


def test_an_import_that_another_overtakes_between_two_looks_finds_its_accounts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw no account, then names of one: the other committed between the two statements."""
    row = AccountRow(2, ADA, "member", "Ada", None, (okta("u1"),))
    there = AccountRow(3, "first@example.com")  # with half of them there it looks without locks
    look, overtaken = accounts.resolve, list[bool]()

    def resolve(tx: Tx, names: Collection[Identity]) -> dict[Identity, Link]:
        if not overtaken:
            overtaken.append(True)
            assert did(world, row) == ["created"]
        return look(tx, names)

    monkeypatch.setattr(accounts, "resolve", resolve)
    assert did(world, row, there) == ["unchanged", "unchanged"]
    assert overtaken


def test_one_line_that_the_database_refuses_falls_alone(world: World) -> None:
    rows = [
        AccountRow(n, f"a{n}@example.com", "member", name="\0" if n == 3 else "A") for n in range(8)
    ]
    assert did(world, *rows) == [*["created"] * 3, "failed", *["created"] * 4]


def test_operators_may_rename_accounts_and_only_the_owner_changes_their_roles() -> None:
    """What the products' database role can do must not widen what an account may do."""
    with own_cluster() as server:
        make_roles(server)
        owner, ops = World(Database(server.url())), World(Database(url_of(OPS, server.url())))
        owner.account("first@example.com")
        assert did(ops, AccountRow(1, ADA, "viewer")) == ["created"]
        renamed = AccountRow(1, ADA, name="Ada", identities=(okta("u1"),))
        assert did(ops, renamed, update=True) == ["account_updated"]
        widened = AccountRow(1, ADA, "member")
        other = AccountRow(2, BOB, "viewer")
        for rehearsal in (Rehearsal(), None):
            refused, made = bring(ops, widened, other, update=True, rehearsal=rehearsal)
            assert (refused.did, refused.code) == ("refused", "role_change_not_granted")
            assert "KEYTURN_DATABASE_URL" in refused.message
            assert made.did == "created"
        assert bring(ops, widened)[0].did == "differs"
        assert did(owner, widened, update=True) == ["account_updated"]
        for world in (owner, ops):
            world.database.close()
