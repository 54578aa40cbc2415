"""A full export changes what its source holds here, where that is wrong, and nothing else."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from models import account_imports, accounts, holds, invariants, reconcile, roles
from models.account_imports import AccountRow
from models.base import Database
from models.errors import Refused
from models.events import Action, Subject
from models.holds import Cause
from models.reconcile import Comparison, ExportRow
from tests.world import ADA, ROLES, World, event

MINUTE = timedelta(minutes=1)
SOURCE = "okta"


@pytest.fixture
def world(database_url: str) -> World:
    made = World(Database(database_url))
    made.database.run(lambda tx: roles.sync(tx, ROLES))
    return made


def address(n: int) -> str:
    return f"a{n}@example.com"


def populate(world: World, number: int, source: str = SOURCE) -> None:
    rows = [
        AccountRow(n, address(n), "member",
                   identities=(Subject(format="opaque", issuer=source, value=f"u{n}"),))
        for n in range(number)
    ]  # fmt: skip
    with world.database.begin() as tx:
        account_imports.batch(
            tx, rows, update=False, rehearsal=None, actor="op", policy=world.policy
        )


def says(n: int, active: bool = True) -> ExportRow:
    return ExportRow(n + 2, (("opaque", SOURCE, f"u{n}"), ("email", "", address(n))), active)


def happens(world: World, n: int, action: Action, at: datetime, source: str = SOURCE) -> None:
    subject = Subject(format="opaque", issuer=SOURCE, value=f"u{n}")
    world.receive(event(action, at=at, subject=subject), source=source)
    world.apply()


def compare(
    world: World, rows: list[ExportRow], at: datetime | None = None, *, everyone: bool = False
) -> Comparison:
    comparison = Comparison(SOURCE, at or datetime.now(UTC))
    with world.database.begin() as tx:
        comparison.add(tx, rows, world.policy)
        comparison.add_absent(tx, world.policy, everyone=everyone)
    return comparison


def apply(world: World, comparison: Comparison) -> Counter[str]:
    return reconcile.apply(
        world.database, comparison, provider="okta", actor="op", policy=world.policy
    )


def found(comparison: Comparison) -> list[tuple[str, str, str]]:
    return [(one.email, one.do, one.why) for one in comparison.differences]


def standing(world: World, n: int) -> set[tuple[str, str]]:
    with world.database.begin() as tx:
        account = accounts.find(tx, address(n))
        return {(one.source, one.kind) for one in holds.standing(tx, holds.on_account(account.id))}


def hold(world: World, n: int, source: str, kind: str = "disabled") -> None:
    with world.database.begin() as tx:
        account = accounts.find(tx, address(n)).id
        holds.lock_accounts(tx, [account])
        cause = Cause(source=source, kind=kind, actor=source)
        holds.place(tx, holds.on_account(account), cause, world.policy)


def counted(world: World, table: str) -> int:
    with world.database.begin() as tx:
        number: int = tx.scalar(f"SELECT count(*) FROM keyturn.{table}")
    return number


def test_a_thousand_that_agree_are_left_as_they_are(world: World) -> None:
    """Row 50 of the table of failures: a reconciler that is wrong disables good keys."""
    populate(world, 1000)
    stopped = range(0, 1000, 10)
    for n in stopped:
        subject = Subject(format="opaque", issuer=SOURCE, value=f"u{n}")
        world.receive(event(Action.DISABLED, subject=subject))
    world.apply()
    before = {table: counted(world, table) for table in ("audit", "holds", "inbox", "outbox")}
    comparison = compare(world, [says(n, n not in stopped) for n in range(1000)])
    assert (comparison.compared, comparison.differences) == (1000, [])
    assert not apply(world, comparison)
    assert {table: counted(world, table) for table in before} == before


def test_each_difference_is_mended_and_then_there_is_none(world: World) -> None:
    populate(world, 5)
    at = datetime.now(UTC)
    happens(world, 2, Action.DISABLED, at - MINUTE)
    rows = [says(0), says(1, active=False), says(2), says(3)]  # 4 is absent
    comparison = compare(world, rows)
    assert found(comparison) == [
        (address(1), "hold", "disabled there"),
        (address(2), "lift", "active there"),
        (address(4), "hold", "absent there"),
    ]
    assert apply(world, comparison) == {"done": 3}
    mine = {(SOURCE, "disabled")}
    assert [standing(world, n) for n in range(5)] == [set(), mine, set(), set(), mine]
    assert not compare(world, rows).differences
    world.settle()
    assert not invariants.check(world.database, world.policy, full=True)


def test_the_audit_says_that_it_was_a_reconciliation(world: World) -> None:
    populate(world, 2)
    comparison = compare(world, [says(0, active=False), says(1)])
    apply(world, comparison)
    with world.database.begin() as tx:
        rows = tx.rows("SELECT actor, action, why FROM keyturn.audit ORDER BY id DESC LIMIT 2")
    assert (rows[0]["actor"], rows[0]["action"]) == ("op", "accounts.reconciled")
    assert rows[0]["why"].startswith("okta: 1 to hold, 0 to lift, as of ")
    assert (rows[1]["actor"], rows[1]["action"]) == ("source:okta", "hold.placed")
    assert rows[1]["why"].startswith("okta/disabled: reconcile (event ")


def test_the_same_export_again_changes_nothing(world: World) -> None:
    populate(world, 2)
    comparison = compare(world, [says(0, active=False), says(1)])
    assert apply(world, comparison) == {"done": 1}
    before = counted(world, "audit")
    assert not apply(world, comparison)
    assert counted(world, "audit") == before


@pytest.mark.parametrize("kind", ["disabled", "compromised", "deleted"])
def test_holds_of_others_and_of_other_kinds_stay(world: World, kind: str) -> None:
    populate(world, 3)
    hold(world, 0, "operator", kind)
    hold(world, 1, "workday", kind)
    hold(world, 2, SOURCE, kind)
    comparison = compare(world, [says(0), says(1), says(2)])
    if kind == "disabled":
        assert found(comparison) == [(address(2), "lift", "active there")]
    else:
        assert not comparison.differences
    apply(world, comparison)
    assert standing(world, 0) == {("operator", kind)}
    assert standing(world, 1) == {("workday", kind)}
    assert standing(world, 2) == (set() if kind == "disabled" else {(SOURCE, kind)})


def test_a_hold_of_another_source_does_not_stand_in_for_this_ones(world: World) -> None:
    populate(world, 1)
    hold(world, 0, "operator")
    apply(world, compare(world, [says(0, active=False)]))
    assert standing(world, 0) == {("operator", "disabled"), (SOURCE, "disabled")}


def test_a_deleted_account_that_is_absent_agrees(world: World) -> None:
    populate(world, 2)
    hold(world, 1, SOURCE, "deleted")
    assert not compare(world, [says(0)]).differences


def test_an_account_that_is_active_there_and_deleted_here_is_told(world: World) -> None:
    populate(world, 1)
    hold(world, 0, SOURCE, "deleted")
    assert compare(world, [says(0)]).left_alone == {"otherwise_held": 1}


@pytest.mark.parametrize("active", [True, False])
def test_a_newer_event_wins_over_the_export(world: World, active: bool) -> None:
    populate(world, 1)
    at = datetime.now(UTC)
    if not active:
        happens(world, 0, Action.DISABLED, at - 2 * MINUTE)
    happens(world, 0, Action.DISABLED if active else Action.ENABLED, at)
    before = standing(world, 0)
    comparison = compare(world, [says(0, active)], at - MINUTE)
    assert (comparison.differences, comparison.left_alone) == ([], {"newer": 1})
    assert standing(world, 0) == before


def test_an_event_between_comparing_and_applying_wins_too(world: World) -> None:
    populate(world, 1)
    at = datetime.now(UTC)
    happens(world, 0, Action.DISABLED, at - 3 * MINUTE)
    comparison = compare(world, [says(0)], at - 2 * MINUTE)
    assert len(comparison.differences) == 1
    happens(world, 0, Action.DISABLED, at - MINUTE)
    assert apply(world, comparison) == {"stale": 1}
    assert standing(world, 0) == {(SOURCE, "disabled")}


def test_an_event_older_than_the_export_that_comes_late_is_stale(world: World) -> None:
    populate(world, 1)
    at = datetime.now(UTC)
    apply(world, compare(world, [says(0, active=False)], at - MINUTE))
    happens(world, 0, Action.ENABLED, at - 2 * MINUTE)
    assert world.states()[-1] == "stale"
    assert standing(world, 0) == {(SOURCE, "disabled")}
    happens(world, 0, Action.ENABLED, at)
    assert standing(world, 0) == set()


def test_absent_are_only_those_that_the_source_knows_unless_it_knows_everyone(
    world: World,
) -> None:
    populate(world, 2)
    world.account(ADA)
    assert not compare(world, [says(0), says(1)]).differences
    comparison = compare(world, [says(0), says(1)], everyone=True)
    assert found(comparison) == [(ADA, "hold", "absent there")]


def test_an_account_that_came_after_the_export_is_not_absent_from_it(world: World) -> None:
    populate(world, 2)
    before = datetime.now(UTC) - timedelta(hours=1)
    assert not compare(world, [says(0)], before, everyone=True).differences


def test_lines_that_name_nobody_here_are_told(world: World) -> None:
    populate(world, 1)
    assert compare(world, [says(0), says(7, active=False)]).unknown == [9]


def test_an_export_that_contradicts_itself_is_refused(world: World) -> None:
    populate(world, 1)
    with pytest.raises(Refused) as refusal:
        compare(world, [says(0), says(0, active=False)])
    assert refusal.value.code == "account_repeated"


@pytest.mark.parametrize(
    ("accounts_", "cuts", "confirmed", "refused"),
    [
        (20, 10, None, False),  # few, whatever the share
        (20, 11, None, True),
        (20, 11, 11, False),
        (20, 11, 12, True),  # another number than the one that was seen
        (200, 20, None, False),
        (200, 21, None, True),  # over a tenth
        (2000, 100, None, False),
        (2000, 101, None, True),  # more than a burst
    ],
)
def test_a_truncated_export_cuts_nobody(
    world: World, accounts_: int, cuts: int, confirmed: int | None, refused: bool
) -> None:
    populate(world, accounts_)
    comparison = compare(world, [says(n) for n in range(cuts, accounts_)])
    assert len(comparison.cuts) == cuts
    given: list[Any] = []
    try:
        reconcile.check_cuts(comparison, world.policy, confirmed)
    except Refused as refusal:
        given.append(refusal.code)
    assert given == (["too_many_cuts"] if refused else [])
