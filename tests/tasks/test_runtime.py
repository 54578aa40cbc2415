"""The shape of every task: a lease, an end written down, and no word taken from a message."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from freezegun import freeze_time

import tasks
from models import api_keys, holds, schedule_runs
from models.base import Database, Step, Tx
from models.events import Action
from models.key_text import Peppers
from models.keyring import Keyring
from models.messages import Delivery, Outgoing
from models.sealing import Sealer
from tasks.clock import ClockGuard
from tasks.runtime import Flow, Runtime, run
from tests.world import EPOCH, World, event
from worker.bell import Bell

KEYRING = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))


class Outbasket:
    """A channel that keeps what it is given, and answers as told."""

    def __init__(self, state: str = "sent") -> None:
        self.state = state
        self.messages: list[Outgoing] = []

    def send(self, messages: list[Outgoing]) -> list[Delivery]:
        self.messages += messages
        return [Delivery(id=m.id, state=self.state) for m in messages]  # type: ignore[arg-type]


@pytest.fixture
def world(database_url: str) -> World:
    return World(Database(database_url))


@pytest.fixture
def frozen(database_url: str) -> World:
    return World(Database(database_url, clock=lambda: datetime.now(UTC)))


def runtime(world: World, **more: object) -> Runtime:
    return Runtime(world.database, world.policy, KEYRING, **{"channels": {}, **more})  # type: ignore[arg-type]


def flow(work: object, *, exclusive: bool = True, destructive: bool = False) -> Flow:
    return Flow("test.flow", work, exclusive, destructive)  # type: ignore[arg-type]


def last_run(world: World, job: str = "test.flow") -> schedule_runs.ScheduleRun:
    with world.database.begin() as tx:
        [found] = [one for one in schedule_runs.listed(tx) if one.job == job]
    return found


def test_a_run_is_written_down_with_what_it_changed(world: World) -> None:
    assert run(flow(lambda given: 7), runtime(world)) == 7
    found = last_run(world)
    assert (found.done, found.error, found.lease_until) == (7, None, None)
    assert found.finished_at is not None


def test_a_failure_is_written_down_and_raised_and_the_next_run_is_free(world: World) -> None:
    def fail(given: Runtime) -> int:
        raise LookupError("a secret in a message")

    with pytest.raises(LookupError):
        run(flow(fail), runtime(world))
    assert last_run(world).error == "LookupError"  # its kind, never its words
    assert run(flow(lambda given: 1), runtime(world)) == 1


def test_an_exclusive_flow_runs_once_at_a_time(world: World) -> None:
    inside, go = threading.Event(), threading.Event()

    def slow(given: Runtime) -> int:
        inside.set()
        assert go.wait(10)
        return 1

    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(run(flow(slow), runtime(world))))
    thread.start()
    assert inside.wait(10)
    assert run(flow(lambda given: 99), runtime(world)) == 0
    go.set()
    thread.join()
    assert results == [1]


def test_a_run_that_died_is_repeated_when_its_lease_has_ended(frozen: World) -> None:
    with freeze_time(EPOCH) as clock:
        dead = frozen.database.run(
            lambda tx: schedule_runs.begin(tx, "test.flow", frozen.policy, exclusive=True)
        )
        assert run(flow(lambda given: 1), runtime(frozen)) == 0
        clock.tick(frozen.policy.lease)
        assert run(flow(lambda given: 2), runtime(frozen)) == 2
        assert dead is not None
        late = frozen.database.run(
            lambda tx: schedule_runs.finish(tx, "test.flow", dead, done=5, error="late")
        )
        assert not late  # the fence keeps a zombie's word out
        assert last_run(frozen).done == 2


def test_the_schedule_knows_what_is_due_and_beats_may_double(frozen: World) -> None:
    rests = {"a": timedelta(seconds=10), "b": timedelta(hours=1)}

    def due() -> list[str]:
        return frozen.database.run(lambda tx: schedule_runs.due(tx, rests))

    with freeze_time(EPOCH) as clock:
        assert due() == ["a", "b"]
        for name in rests:
            run(Flow(name, lambda given: 0, True, False), runtime(frozen))
        assert due() == []
        clock.tick(10)
        assert due() == ["a"]
        clock.tick(3600)
        assert due() == ["a", "b"]


def test_at_most_one_ring_is_outstanding_and_a_lost_one_is_repeated(frozen: World) -> None:
    rung: list[str] = []
    bell = Bell(frozen.database, rung.append)
    with freeze_time(EPOCH) as clock:
        bell({"test.flow"})
        bell({"test.flow"})
        assert rung == ["test.flow"]
        run(flow(lambda given: 0), runtime(frozen))
        bell({"test.flow"})
        assert rung == ["test.flow"] * 2
        clock.tick(schedule_runs.RING_LOST_AFTER + timedelta(seconds=1))
        bell({"test.flow"})
        assert rung == ["test.flow"] * 3


def test_ringing_never_raises(world: World) -> None:
    def down(name: str) -> None:
        raise ConnectionError

    Bell(world.database, down)({"test.flow"})


def test_a_commit_rings_after_it_and_a_rollback_does_not(world: World) -> None:
    heard: list[set[str]] = []
    world.database.on_commit = heard.append
    with world.database.begin() as tx:
        tx.ring("keys.settle")
        assert heard == []
    assert heard == [{"keys.settle"}]

    def fail() -> None:
        with world.database.begin() as tx:
            tx.ring("keys.settle")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert heard == [{"keys.settle"}]


def test_a_long_run_rings_for_the_next_and_ends(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[set[str]] = []
    world.database.on_commit = heard.append
    monkeypatch.setattr("tasks.runtime.LONGEST_RUN", timedelta(0))
    assert runtime(world).until_finished(lambda: Step(3, finished=False), "test.flow") == 3
    assert heard == [{"test.flow"}]


def test_event_to_delivery_by_tasks_alone(world: World) -> None:
    world.account()
    key, text = world.key()
    out = Outbasket()
    given = runtime(world, channels={"events": out})
    flows = tasks.flows()
    world.receive(event(Action.DISABLED))
    assert run(flows["accounts.apply_events"], given) == 1
    assert world.verify(text).reason == "account_held"
    assert run(flows["keys.settle"], given) == 1
    assert world.status(key) == "disabled"
    run(flows["outbox.deliver"], given)
    assert [message.kind for message in out.messages] == ["key.issued", "key.disabled"]
    assert run(flows["outbox.deliver"], given) == 0  # nothing is left


def test_a_message_that_may_work_later_waits_longer_each_time(frozen: World) -> None:
    out = Outbasket("retry")
    given = runtime(frozen, channels={"events": out})
    deliver = tasks.flows()["outbox.deliver"]
    with freeze_time(EPOCH) as clock:
        frozen.account()
        frozen.key()
        run(deliver, given)
        clock.tick(4)
        run(deliver, given)
        assert len(out.messages) == 1
        clock.tick(1)
        run(deliver, given)
        assert len(out.messages) == 2
        clock.tick(9)
        run(deliver, given)
        assert len(out.messages) == 2
        clock.tick(1)
        out.state = "sent"
        assert run(deliver, given) == 1
    assert len({message.id for message in out.messages}) == 1  # one stable id


def test_a_sender_that_died_leaves_its_messages_to_the_next(frozen: World) -> None:
    from models import outbox

    out = Outbasket()
    with freeze_time(EPOCH) as clock:
        frozen.account()
        frozen.key()
        dead = frozen.database.run(lambda tx: outbox.lease(tx, "events", frozen.policy))
        given = runtime(frozen, channels={"events": out})
        assert run(tasks.flows()["outbox.deliver"], given) == 0
        clock.tick(frozen.policy.lease)
        out.state = "retry"  # leased anew, and still waiting when the zombie comes back
        assert run(tasks.flows()["outbox.deliver"], given) == 0
        zombie = [Delivery(id=message.id, state="failed") for message in dead.messages]
        frozen.database.run(lambda tx: outbox.settle(tx, dead, zombie))
        reasons = {message.id: "late" for message in dead.messages}
        frozen.database.run(lambda tx: outbox.skip(tx, dead, reasons))
        with frozen.database.begin() as tx:
            assert tx.scalar("SELECT state FROM keyturn.outbox") == "waiting"


class Clocks:
    """A monotonic clock and a broker's, moved by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.broker: datetime | None = None


@pytest.mark.parametrize("jump", [timedelta(days=365), timedelta(seconds=-90)])
def test_nothing_is_deleted_while_a_clock_is_suspect(world: World, jump: timedelta) -> None:
    clocks = Clocks()
    guard = ClockGuard(lambda: clocks.broker, lambda: clocks.seconds)
    ran: list[str] = []

    def work(given: Runtime) -> int:
        ran.append("x")
        return 1

    destructive = flow(work, destructive=True)
    given = runtime(world, clock=guard)
    assert run(destructive, given) == 1
    clocks.seconds -= jump.total_seconds()  # the database's clock seems to have jumped by that
    assert run(destructive, given) == 0
    assert ran == ["x"]
    assert "jumped" in (last_run(world).error or "")


def test_no_key_is_marked_as_expired_while_a_clock_is_suspect(frozen: World) -> None:
    """Expired is for ever: a clock that is put right again must find the keys as they were."""
    with freeze_time(EPOCH) as clock:
        frozen.account()
        key, text = frozen.key()
        clock.tick(timedelta(days=400))
        suspect = ClockGuard(broker_time=lambda: EPOCH)
        assert run(tasks.flows()["keys.expire_due"], runtime(frozen, clock=suspect)) == 0
        assert "differ" in (last_run(frozen, "keys.expire_due").error or "")
        assert frozen.verify(text).reason == "expired"
        clock.move_to(EPOCH + timedelta(days=1))
        assert frozen.verify(text).valid
        assert frozen.status(key) == "active"
        clock.tick(timedelta(days=400))
        assert run(tasks.flows()["keys.expire_due"], runtime(frozen)) == 1


def test_the_schedule_goes_on_when_a_clock_that_was_ahead_is_put_right(frozen: World) -> None:
    """What was started, rung for and leased by the wrong clock holds nobody up."""
    rests = {"test.flow": timedelta(seconds=5)}
    found: dict[str, list[object]] = {"due": [], "rung": [], "begun": []}

    def ask() -> None:
        database, policy = frozen.database, frozen.policy
        found["due"].append(database.run(lambda tx: schedule_runs.due(tx, rests)))
        found["rung"].append(database.run(lambda tx: schedule_runs.mark_rung(tx, ["test.rung"])))
        found["begun"].append(
            database.run(lambda tx: schedule_runs.begin(tx, "test.flow", policy, exclusive=True))
        )

    with freeze_time(EPOCH + timedelta(days=400)) as clock:
        ask()
        ask()
        clock.move_to(EPOCH)
        ask()
        ask()
    assert found == {
        "due": [["test.flow"], [], ["test.flow"], []],
        "rung": [["test.rung"], [], ["test.rung"], []],
        "begun": [1, None, 2, None],
    }


def test_a_broker_that_disagrees_makes_the_clock_suspect(world: World) -> None:
    clocks = Clocks()
    guard = ClockGuard(lambda: clocks.broker, lambda: clocks.seconds)
    clocks.broker = datetime.now(UTC)
    assert guard.suspect(world.database) is None
    clocks.broker += timedelta(minutes=2)
    assert "differ" in (guard.suspect(world.database) or "")


def test_keys_of_a_deleted_account_are_deleted_after_the_delay(frozen: World) -> None:
    given = runtime(frozen)
    delete = tasks.flows()["keys.delete_due"]
    with freeze_time(EPOCH) as clock:
        frozen.account()
        key, text = frozen.key()
        frozen.receive(event(Action.DELETED))
        frozen.apply()
        frozen.settle()
        clock.tick(frozen.policy.deletion_delay - timedelta(seconds=1))
        assert run(delete, runtime(frozen)) == 0
        clock.tick(1)
        assert run(delete, given) == 1
        assert frozen.status(key) == "deleted"
        assert frozen.verify(text).reason == "deleted"


def test_deletions_of_a_burst_wait_for_an_operator(frozen: World) -> None:
    from models import deletions

    frozen.policy = type(frozen.policy)(burst_accounts=1)
    delete = tasks.flows()["keys.delete_due"]
    with freeze_time(EPOCH) as clock:
        for name in ("ada", "bob"):
            frozen.account(f"{name}@example.com")
            frozen.key(f"{name}@example.com")
            frozen.receive(event(Action.DELETED, f"{name}@example.com"))
        frozen.apply()
        clock.tick(frozen.policy.deletion_delay)
        assert run(delete, runtime(frozen)) == 0
        assert frozen.database.run(lambda tx: deletions.confirm_source(tx, "okta", actor="t")) == 2
        assert run(delete, runtime(frozen)) == 2


def test_a_key_deleted_long_ago_shrinks_to_a_tombstone_that_still_refuses(frozen: World) -> None:
    retain = tasks.flows()["upkeep.retention"]
    with freeze_time(EPOCH) as clock:
        account = frozen.account()
        key, text = frozen.key()
        other, _ = frozen.key()

        def delete(tx: Tx) -> bool:
            holds.lock_accounts(tx, [account])
            return api_keys.delete(tx, key, actor="t", why="test", policy=frozen.policy)

        frozen.database.run(delete)
        clock.tick(frozen.policy.purge_after - timedelta(seconds=1))
        assert run(retain, runtime(frozen)) == 0
        clock.tick(1)
        assert run(retain, runtime(frozen)) == 1
        assert run(retain, runtime(frozen)) == 0
        with frozen.database.begin() as tx:
            gone, kept = api_keys.find(tx, str(key)), api_keys.find(tx, str(other))
        assert (gone.name, gone.hint, gone.created_by, gone.account_id) == ("", "", "", account)
        assert (kept.name, gone.family_id) == ("a key", key)
        assert frozen.verify(text).reason == "deleted"


def test_many_keys_expiring_at_once_raise_an_alarm(
    frozen: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    alarms: list[str] = []
    monkeypatch.setattr(Runtime, "alarm", lambda self, name, **facts: alarms.append(name))
    frozen.policy = type(frozen.policy)(expiry_alarm_min=2)
    expire = tasks.flows()["keys.expire_due"]
    with freeze_time(EPOCH) as clock:
        frozen.account()
        for _ in range(3):
            frozen.key(validity=timedelta(minutes=1))
        frozen.key()
        clock.tick(60)
        assert run(expire, runtime(frozen)) == 3
    assert alarms == ["many_keys_expired"]
