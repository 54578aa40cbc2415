"""One statement settles, whatever the scope: in batches, to the present truth (rule 3)."""

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from freezegun import freeze_time

from models import api_keys, holds, settle
from models.base import Database, Tx
from models.events import Action
from models.holds import Cause, Target
from models.policy import Policy
from models.predicate import STATUS, WORKS, WORKS_JOINED
from tests.world import ADA, EPOCH, World, event

FREE, HELD = UUID(int=1), UUID(int=2)


@pytest.fixture
def world(database_url: str) -> World:
    return World(Database(database_url))


@pytest.fixture
def frozen(database_url: str) -> World:
    return World(Database(database_url, clock=lambda: datetime.now(UTC)))


def due(world: World) -> int:
    changed = 0
    while True:
        step = world.database.run(lambda tx: settle.due(tx, world.policy))
        changed += step.changed
        if step.finished:
            return changed


def test_status_is_active_exactly_where_the_predicate_holds(world: World) -> None:
    flags = list(itertools.product((False, True), repeat=6))
    with world.database.begin() as tx:
        tx.execute(
            """
            INSERT INTO keyturn.tenants (id, name, held, created_at)
            VALUES (:free, 'free', false, :now), (:held, 'held', true, :now)
            """,
            free=FREE,
            held=HELD,
        )
        rows = tx.rows(
            f"""
            SELECT {STATUS} AS status, ({WORKS}) AS works, ({WORKS_JOINED}) AS joined
            FROM unnest(CAST(:ah AS boolean[]), CAST(:kh AS boolean[]), CAST(:del AS boolean[]),
                        CAST(:over AS boolean[]), CAST(:member AS boolean[]),
                        CAST(:th AS boolean[])) AS f (ah, kh, del, over, member, th)
            CROSS JOIN LATERAL (
                SELECT f.ah AS held,
                       CASE WHEN f.member THEN
                           CASE WHEN f.th THEN CAST(:held AS uuid) ELSE CAST(:free AS uuid) END
                       END AS tenant_id) a
            LEFT JOIN keyturn.tenants t ON t.id = a.tenant_id
            CROSS JOIN LATERAL (
                SELECT gen_random_uuid() AS id, f.kh AS held, 'active' AS status,
                       CASE WHEN f.del THEN :now END AS deleted_at,
                       :now + CASE WHEN f.over THEN interval '0' ELSE interval '1 second' END
                           AS expires_at) k
            """,
            ah=[f[0] for f in flags],
            kh=[f[1] for f in flags],
            **{"del": [f[2] for f in flags]},
            over=[f[3] for f in flags],
            member=[f[4] for f in flags],
            th=[f[5] for f in flags],
            held=HELD,
            free=FREE,
        )
    assert len(rows) == 64
    assert [flag[4:] for flag, row in zip(flags, rows, strict=True) if row["works"]] == [
        (False, False),
        (False, True),
        (True, False),
    ]
    assert all((row["status"] == "active") == row["works"] == row["joined"] for row in rows)


def test_a_cascade_runs_in_batches_and_finishes_at_a_plain_count_of_zero(world: World) -> None:
    world.policy = Policy(settle_batch=3, page_keys=2)
    world.account()
    keys = [world.key()[0] for _ in range(8)]
    world.receive(event(Action.DISABLED))
    world.apply()
    steps = []
    while True:
        step = world.database.run(lambda tx: settle.accounts(tx, world.policy))
        if step.finished:
            break
        steps.append(step.changed)
    assert steps == [3, 3, 2]
    assert {world.status(key) for key in keys} == {"disabled"}
    with world.database.begin() as tx:
        pages = tx.execute(
            "SELECT jsonb_array_length(payload->'key_ids') FROM keyturn.outbox "
            "WHERE kind = 'key.disabled'"
        )
        assert sorted(pages.scalars(), reverse=True) == [2, 2, 2, 1, 1]
        assert tx.scalar("SELECT count(*) FROM keyturn.accounts WHERE unsettled") == 0


def test_an_old_cascade_that_resumes_after_a_re_enable_does_no_harm(world: World) -> None:
    world.policy = Policy(settle_batch=2)
    world.account()
    keys = [world.key()[0] for _ in range(4)]
    world.receive(event(Action.DISABLED))
    world.apply()
    world.database.run(lambda tx: settle.accounts(tx, world.policy))
    world.receive(event(Action.ENABLED))
    world.apply()
    world.settle()
    assert {world.status(key) for key in keys} == {"active"}


def test_expiry_marks_what_is_due_and_leaves_the_rest(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        short, text = frozen.key(validity=timedelta(minutes=1))
        longer, _ = frozen.key(validity=timedelta(minutes=2))
        clock.tick(59)
        assert due(frozen) == 0
        assert frozen.verify(text).valid
        clock.tick(1)
        assert frozen.verify(text).reason == "expired"  # before any sweep
        assert due(frozen) == 1
        assert (frozen.status(short), frozen.status(longer)) == ("expired", "active")
        assert due(frozen) == 0


def test_expired_keys_are_not_restored_with_their_account(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        key, text = frozen.key(validity=timedelta(minutes=1))
        frozen.receive(event(Action.DISABLED))
        frozen.apply()
        frozen.settle()
        clock.tick(60)
        assert due(frozen) == 1
        frozen.receive(event(Action.ENABLED))
        frozen.apply()
        frozen.settle()
        assert frozen.status(key) == "expired"
        assert frozen.verify(text).reason == "expired"


def test_a_transaction_of_an_older_instant_never_revives_an_expired_key(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        frozen.account()
        key, _ = frozen.key(validity=timedelta(minutes=1))
        clock.tick(60)
        assert due(frozen) == 1
        clock.tick(-30)
        frozen.receive(event(Action.DISABLED))
        frozen.apply()
        frozen.settle()
        assert frozen.status(key) == "expired"


def test_a_sweep_passes_over_a_locked_key_and_comes_back(world: World) -> None:
    world.account()
    key, _ = world.key(validity=timedelta(minutes=1))
    other, _ = world.key(validity=timedelta(minutes=1))
    with world.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = created_at - interval '1 hour', "
            "expires_at = expires_at - interval '1 hour'"
        )
    with world.database.begin() as tx:
        tx.execute("SELECT FROM keyturn.api_keys WHERE id = :key FOR UPDATE", key=key)
        assert due(world) == 1
        assert world.status(other) == "expired"
    assert due(world) == 1
    assert world.status(key) == "expired"


def test_a_keys_own_hold_and_its_accounts_hold_are_apart(world: World) -> None:
    account = world.account()
    key, text = world.key()

    def on_key(change: Callable[[Tx, Target, Cause, Policy], bool]) -> None:
        cause = Cause(source="operator", kind="disabled", actor="t")
        with world.database.begin() as tx:
            holds.lock_accounts(tx, [account])
            change(tx, holds.on_key(key), cause, world.policy)

    on_key(holds.place)
    assert world.verify(text).reason == "key_held"
    world.receive(event(Action.DISABLED))
    world.apply()
    world.settle()
    world.receive(event(Action.ENABLED))
    world.apply()
    world.settle()
    assert world.status(key) == "disabled"
    on_key(holds.lift)
    assert world.status(key) == "active"
    assert world.verify(text).valid


def test_a_deleted_key_is_deleted_whatever_else_holds(world: World) -> None:
    account = world.account()
    key, text = world.key()

    def delete(tx: object) -> bool:
        holds.lock_accounts(tx, [account])  # type: ignore[arg-type]
        return api_keys.delete(tx, key, actor="t", why="test", policy=world.policy)  # type: ignore[arg-type]

    assert world.database.run(delete)
    assert not world.database.run(delete)
    assert world.verify(text).reason == "deleted"
    with world.database.begin() as tx:
        last = tx.row(
            "SELECT version, after, why FROM keyturn.audit WHERE key_id = :key "
            "ORDER BY version DESC LIMIT 1",
            key=key,
        )
    assert last is not None
    assert dict(last) == {"version": 2, "after": "deleted", "why": "test"}


def test_the_email_of_an_account_is_matched_exactly(world: World) -> None:
    world.account()
    assert world.verify(world.key(ADA.upper())[1]).account == ADA
