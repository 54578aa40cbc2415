"""`operations.advance` on the real clock: several workers, one pace, and what races it."""

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event as hooks

import tasks
from models import invariants, operation_steps
from models.base import Database
from models.keyring import Keyring
from models.operations import Operation, Selection
from models.operator import Operator
from models.policy import Policy
from tasks.runtime import Runtime
from tests.world import ADA, World

ADVANCE = tasks.flows()["operations.advance"]
BOB = "bob@example.com"
POLICY = Policy(wave_keys=8, bulk_rate=100.0)


class Plant:
    """An installation with keys of two owners, and any number of workers."""

    def __init__(self, url: str, secrets: Path) -> None:
        self.url = url
        self.keyring = Keyring.from_directory(secrets)
        self.operator = Operator(url, keyring=lambda: self.keyring, policy=POLICY, actor="op")
        self.world = World(self.operator.database, POLICY, self.keyring.peppers)
        self.rung: list[str] = []
        self.databases = [self.operator.database]

    def keys(self, count: int) -> None:
        for number, email in enumerate((ADA, BOB)):
            self.world.account(email)
            for _ in range((count + number) // 2):
                self.world.key(email)

    def worker(self, policy: Policy = POLICY) -> Runtime:
        database = Database(self.url)
        database.on_commit = self.rung.extend
        self.databases.append(database)
        return Runtime(database, policy, self.keyring, {})

    def applied(self) -> Operation:
        plan = self.operator.operations.plan(Selection(everything=True))
        return self.operator.operations.apply(str(plan.id))

    def find(self, plan: Operation) -> Operation:
        return self.operator.operations.find(str(plan.id))

    def issued(self) -> list[datetime]:
        """When successors were issued, in order; each key was rotated once at most."""
        with self.operator.database.begin() as tx:
            rows = tx.rows("SELECT old_key_id, issued_at FROM keyturn.rotations ORDER BY issued_at")
        assert len({row["old_key_id"] for row in rows}) == len(rows)
        return [row["issued_at"] for row in rows]

    def broken(self) -> list[str]:
        found = invariants.check(self.operator.database, POLICY, full=True)
        return [one.name for one in found]


@pytest.fixture
def plant(database_url: str, secrets_dir: Path) -> Iterator[Plant]:
    made = Plant(database_url, secrets_dir)
    yield made
    for database in made.databases:
        database.close()


def work_until_ended(plant: Plant, plan: Operation, policy: Policy = POLICY) -> None:
    """What a worker does whose schedule is very quick."""
    worker = plant.worker(policy)
    while not plant.find(plan).ended:
        tasks.run(ADVANCE, worker)


def closest(moments: list[datetime]) -> timedelta:
    return min(after - before for before, after in itertools.pairwise(moments))


def test_workers_together_keep_one_pace_and_rotate_each_key_once(plant: Plant) -> None:
    plant.keys(40)
    plan = plant.applied()
    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work_until_ended, plant, plan) for _ in range(4)]:
            done.result(timeout=60)
    found = plant.find(plan)
    assert (found.state, found.issued, found.failed, found.skipped) == ("completed", 40, 0, 0)
    moments = plant.issued()
    assert len(moments) == 40
    assert closest(moments) >= timedelta(seconds=1 / POLICY.bulk_rate)
    with plant.operator.database.begin() as tx:
        told = tx.rows(
            "SELECT account_id, payload FROM keyturn.outbox WHERE kind = 'operation.issued'"
        )
    assert len(told) == 2 * found.waves == found.messages
    assert sum(row["payload"]["total"] for row in told) == 40
    assert plant.broken() == []


def test_nothing_is_begun_after_pause_has_answered(plant: Plant) -> None:
    plant.keys(150)  # some must be left at the last pause, however late it comes
    plan = plant.applied()
    stop = threading.Event()

    def work() -> None:
        worker = plant.worker()
        while not stop.is_set():
            tasks.run(ADVANCE, worker)

    with ThreadPoolExecutor(2) as pool:
        workers = [pool.submit(work) for _ in range(2)]
        for _ in range(5):
            while not plant.operator.operations.find(str(plan.id)).done:
                time.sleep(0.01)
            time.sleep(0.05)
            paused = plant.operator.operations.pause(str(plan.id))
            time.sleep(0.05)
            assert plant.find(plan).issued == paused.issued == len(plant.issued())
            plant.operator.operations.resume(str(plan.id))
        stop.set()
        for done in workers:
            done.result(timeout=30)
    work_until_ended(plant, plan)
    assert len(plant.issued()) == 150
    assert plant.broken() == []


def test_a_plan_that_two_apply_is_applied_once(plant: Plant) -> None:
    plant.keys(4)
    plan = plant.operator.operations.plan(Selection(everything=True))
    start = threading.Barrier(4)

    def apply() -> datetime | None:
        start.wait()
        return plant.operator.operations.apply(str(plan.id)).applied_at

    with ThreadPoolExecutor(4) as pool:
        answers = {done.result() for done in [pool.submit(apply) for _ in range(4)]}
    assert len(answers) == 1
    with plant.operator.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.audit WHERE action LIKE 'operation.%'") == 1


def test_a_run_leaves_the_work_to_another_that_is_at_it(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.operations, "STAY", timedelta(minutes=1))
    plant.keys(8)
    plan = plant.applied()
    slow = replace(POLICY, bulk_rate=5.0)
    busy = ThreadPoolExecutor(1).submit(tasks.run, ADVANCE, plant.worker(slow))
    while not plant.issued():
        time.sleep(0.01)
    begun = time.monotonic()
    changed = tasks.run(ADVANCE, plant.worker(slow))
    either = changed + busy.result(timeout=30)
    assert time.monotonic() - begun < 30
    assert either >= 8
    work_until_ended(plant, plan, slow)
    assert closest(plant.issued()) >= timedelta(seconds=0.2)


def test_a_run_does_not_keep_its_thread_for_long(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant.keys(4)
    plant.applied()
    plant.rung.clear()
    monkeypatch.setattr(tasks.operations, "STAY", timedelta(seconds=0.3))
    worker = plant.worker(replace(POLICY, bulk_rate=5.0))
    assert 0 < tasks.run(ADVANCE, worker) < 4
    assert "operations.advance" in plant.rung
    far = plant.worker(replace(POLICY, bulk_rate=0.1))
    begun = time.monotonic()
    tasks.run(ADVANCE, far)
    assert tasks.run(ADVANCE, far) == 0
    assert time.monotonic() - begun < 8  # and not the ten seconds to the next key


def test_a_suspect_clock_stops_it(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant.keys(2)
    plant.applied()
    worker = plant.worker()
    monkeypatch.setattr(worker.clock, "suspect", lambda database: "it jumped")
    assert tasks.run(ADVANCE, worker) == 0
    assert plant.issued() == []


def test_planning_and_a_turn_are_a_few_statements_however_many_the_keys(plant: Plant) -> None:
    plant.keys(2)
    few = statements(plant)
    with plant.operator.database.begin() as tx:
        tx.execute(
            """
            INSERT INTO keyturn.api_keys (id, account_id, name, created_by, role, digest, scheme,
                hint, family_id, created_at, expires_at)
            SELECT n.id, a.id, 'many', 'test', 'viewer', sha256(CAST(n.id::text AS bytea)), 's',
                'abcd', n.id, :now, :now + interval '9 days'
            FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, 10000)) n
            CROSS JOIN LATERAL (SELECT id FROM keyturn.accounts WHERE email = :email) a
            """,
            email=ADA,
        )
    assert statements(plant) == few


def statements(plant: Plant) -> int:
    """How many it takes to plan, to apply, and to claim the first key."""
    asked = []

    def count(*given: object) -> None:
        asked.append(given[2])

    hooks.listen(plant.operator.database.engine, "before_cursor_execute", count)
    plan = plant.applied()
    with plant.operator.database.begin() as tx:
        assert operation_steps.turn(tx, POLICY).claimed is not None
    hooks.remove(plant.operator.database.engine, "before_cursor_execute", count)
    assert plan.keys in (2, 10_002)
    plant.operator.operations.cancel(str(plan.id), "counted")
    return len(asked)
