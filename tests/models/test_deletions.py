"""Keys of deleted accounts: each hold is carried out once, and then costs nothing any more."""

from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

from models import deletions, holds
from models.base import Database, Tx
from models.events import Action
from models.tables import DELETION_OPEN
from tests.world import ADA, EPOCH, World, event

DELAY = timedelta(days=7)


@pytest.fixture
def world(database_url: str) -> World:
    return World(Database(database_url, clock=lambda: datetime.now(UTC)))


def step(world: World) -> tuple[int, bool]:
    done = world.database.run(lambda tx: deletions.step(tx, world.policy))
    return done.changed, done.finished


def run(world: World) -> int:
    """A whole run; returns how many keys it deleted."""
    deleted = 0
    while not (done := step(world))[1]:
        deleted += done[0]
    return deleted


def open_holds(world: World) -> int:
    with world.database.begin() as tx:
        return int(tx.scalar(f"SELECT count(*) FROM keyturn.holds h WHERE {DELETION_OPEN}"))


def cut(world: World, email: str = ADA, keys: int = 1) -> None:
    world.account(email)
    for _ in range(keys):
        world.key(email)
    world.receive(event(Action.DELETED, email))
    world.apply()


def test_a_hold_that_was_carried_out_is_not_looked_at_again(world: World) -> None:
    world.policy = type(world.policy)(settle_batch=2)
    with freeze_time(EPOCH) as clock:
        cut(world, keys=5)
        cut(world, "nobody@example.com", keys=0)
        assert step(world) == (0, True)
        assert open_holds(world) == 2
        clock.tick(DELAY)
        assert [step(world) for _ in range(4)] == [(2, False), (2, False), (1, False), (0, True)]
        assert open_holds(world) == 0


def test_one_that_is_placed_anew_is_carried_out_anew(world: World) -> None:
    with freeze_time(EPOCH) as clock:
        cut(world)
        clock.tick(DELAY)
        assert run(world) == 1
        with world.database.begin() as tx:
            account = tx.scalar("SELECT id FROM keyturn.accounts")
        cause = holds.Cause(source="okta", kind="deleted", actor="test")

        def lift(tx: Tx) -> None:
            holds.lock_accounts(tx, [account])
            assert holds.lift(tx, holds.on_account(account), cause, world.policy)

        world.database.run(lift)
        world.settle()
        world.key()
        clock.tick(60)
        world.receive(event(Action.DELETED))
        world.apply()
        assert open_holds(world) == 1
        assert run(world) == 0
        clock.tick(DELAY)
        assert run(world) == 1
        assert open_holds(world) == 0


def test_what_one_hold_carries_out_leaves_the_others_open(world: World) -> None:
    """The same account, deleted by another source later, or by one that waits for an operator."""
    with freeze_time(EPOCH) as clock:
        cut(world)
        clock.tick(timedelta(days=1))
        world.receive(event(Action.DELETED), source="hr")
        world.receive(event(Action.DISABLED), source="hr")
        world.apply()
        with world.database.begin() as tx:
            tx.execute(
                "INSERT INTO keyturn.holds"
                " (id, account_id, source, kind, reason, placed_at, confirm)"
                " SELECT gen_random_uuid(), account_id, 'scim', kind, reason, :now - :long, true"
                " FROM keyturn.holds WHERE source = 'okta'",
                long=DELAY,
            )
        clock.tick(DELAY - timedelta(days=1))
        assert run(world) == 1
        with world.database.begin() as tx:
            carried_out = tx.execute(
                "SELECT source || ' ' || kind FROM keyturn.holds WHERE carried_out_at IS NOT NULL"
            ).scalars()
            assert list(carried_out) == ["okta deleted"]
        assert open_holds(world) == 1
