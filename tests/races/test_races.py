"""Pairs of flows, statement by statement in every order that the locks allow, up to a bound."""

import os
from collections.abc import Callable
from typing import Final
from uuid import UUID

import pytest

from models import holds
from models.base import Database, Tx
from models.errors import Refused
from tests.races.pairs import PAIRS
from tests.races.schedules import Schedule, schedules
from tests.races.sides import Pair
from tests.races.stage import Actor, Stage
from tests.races.turns import Side, Turns
from tests.world import ADA

pytestmark = pytest.mark.usefixtures("quiet_logs")

MOST: Final = int(
    os.environ.get("RACE_SCHEDULES") or (500 if os.environ.get("CI") == "true" else 8)
)
"""Orders of one pair."""


def play(stage: Stage, pair: Pair, schedule: Schedule) -> Turns:
    """One order, from a fresh start to the quiet after it."""
    stage.reset()
    pair.prepare(stage)

    def side(name: str, actor: Actor, work: Callable[[Stage, Actor], object]) -> Side:
        return Side(name, actor.database, lambda _: work(stage, actor))

    turns = Turns(stage.watch, side("L", stage.left, pair.left), side("R", stage.right, pair.right))
    turns.play(schedule)
    shown = f"{pair.name} {schedule} {''.join(turns.trace)}"
    for one in turns.sides:
        if one.error is not None and not isinstance(one.error, Refused):
            raise AssertionError(shown) from one.error
    assert stage.quiet() == [], shown
    pair.after(stage)
    return turns


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_no_order_breaks_a_promise(stage: Stage, pair: Pair) -> None:
    first = play(stage, pair, ((0, 10_000), (1, 10_000)))
    second = play(stage, pair, ((1, 10_000), (0, 10_000)))
    steps = [max(a.steps, b.steps) for a, b in zip(first.sides, second.sides, strict=True)]
    traces, repeated = set[str](), 0
    for schedule in schedules((steps[0], steps[1]), MOST):
        turns = play(stage, pair, schedule)
        traces.add("".join(turns.trace))
        repeated += sum(len(side.repeats) for side in turns.sides)
    assert len(traces) > 2, "these sides never met"
    print(f"{pair.name}: {steps} steps, {len(traces)} orders, {repeated} repeats")  # noqa: T201


def test_a_creation_that_takes_no_lock_is_caught(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What these tests are for: without the account's row, a key slips through."""
    pair = next(pair for pair in PAIRS if pair.name == "disable-create")
    monkeypatch.setattr(holds, "lock_accounts", lambda tx, ids: None)
    with pytest.raises(AssertionError, match="status_is_true"):
        _play_all(stage, pair)


def _play_all(stage: Stage, pair: Pair) -> None:
    for schedule in schedules((30, 9), 200):
        play(stage, pair, schedule)


def test_a_deadlock_is_repeated(stage: Stage) -> None:
    """Two sides that take two rows in opposite orders: one of them is rolled back and goes on."""
    stage.reset()
    other = stage.keeper.operator.create_account("bob@example.com", "member").id
    ada = stage.keeper.operator.account(ADA).id

    def both(first: UUID, second: UUID) -> Callable[[Database], object]:
        def take(tx: Tx) -> None:
            holds.lock_accounts(tx, [first])
            holds.lock_accounts(tx, [second])

        return lambda database: database.run(take)

    turns = Turns(
        stage.watch,
        Side("L", stage.left.database, both(ada, other)),
        Side("R", stage.right.database, both(other, ada)),
    )
    turns.play(((0, 1), (1, 2), (0, 10_000)))
    assert [side.error for side in turns.sides] == [None, None]
    assert [state for side in turns.sides for state in side.repeats] == ["40P01"]
