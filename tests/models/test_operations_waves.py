"""Carrying out: waves, the pace, who is told, and what stops, pauses, resumes or ends it."""

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.exc import OperationalError

from models import operations, rotations
from models.operation_steps import Turn
from models.operations import Selection
from tests.models.bulk import Bulk
from tests.models.scene import DAY, HOUR, Scene

SECOND = timedelta(seconds=1)
FIFTH = timedelta(seconds=0.2)


@pytest.fixture
def bulk(scene: Scene) -> Bulk:
    return Bulk(scene, wave_keys=3)


def fails(monkeypatch: pytest.MonkeyPatch, *names: str, error: Exception) -> None:
    """Issuing a successor of keys of these names raises an error from now on."""
    really = rotations.request

    def request(tx: Any, key_id: UUID, **given: Any) -> Any:
        name = tx.scalar("SELECT name FROM keyturn.api_keys WHERE id = :id", id=key_id)
        if name in names:
            raise error
        return really(tx, key_id, **given)

    monkeypatch.setattr(rotations, "request", request)


def test_every_key_is_rotated_once(scene: Scene, bulk: Bulk) -> None:
    keys = {scene.key() for _ in range(7)}
    plan = bulk.applied()
    assert bulk.work() == 7
    made = scene.sql("SELECT * FROM keyturn.rotations")
    assert Counter(row["old_key_id"] for row in made) == Counter(keys)
    assert {(row["reason"], row["operation_id"], row["requested_by"]) for row in made} == {
        ("operation", plan.id, "op")
    }
    done = bulk.find(plan)
    assert (done.state, done.wave, done.issued, done.waiting) == ("completed", 3, 7, 0)
    assert done.ended_at == scene.now()
    assert {row["rotation_id"] for row in bulk.rows(plan)} == {row["id"] for row in made}
    assert bulk.turn() == Turn()


def test_one_message_to_each_owner_and_wave(scene: Scene, bulk: Bulk) -> None:
    bob = scene.account("bob@example.com")
    for number in range(3):
        scene.key((90 + number) * DAY, name=f"a{number}")
    scene.key(name="b", account=bob)
    bulk.applied()
    bulk.work(3)
    assert bulk.letters() == []  # the wave is not done
    bulk.work()
    assert sorted(bulk.letters()) == [
        ("ada@example.com", ["a0", "a1"]),
        ("ada@example.com", ["a2"]),
        ("bob@example.com", ["b"]),
    ]
    assert scene.mails("rotation.issued") == []


def test_a_message_names_some_and_counts_all(scene: Scene) -> None:
    bulk = Bulk(scene, notice_keys=2)
    for number in range(5):
        scene.key((90 - number) * DAY, name=f"a{number}")
    bulk.applied()
    bulk.work()
    [letter] = scene.mails("operation.issued")
    assert [key["name"] for key in letter["keys"]] == ["a4", "a3"]
    assert (letter["total"], letter["to_claim"]) == (5, 5)
    assert letter["claim_by"].startswith("2026-03-04T12:00:00")
    successors = {
        row["new_key_id"] for row in scene.sql("SELECT new_key_id FROM keyturn.rotations")
    }
    assert {UUID(key["successor_id"]) for key in letter["keys"]} < successors


def test_keys_that_no_longer_fit_are_skipped_and_stop_nobody(scene: Scene, bulk: Bulk) -> None:
    deleted, held, rotated, expired = (scene.key(name=f"k{n}") for n in range(4))
    fits = scene.key(name="fits")
    plan = bulk.applied()
    scene.delete(deleted)
    scene.hold(key=held)
    scene.request(rotated)
    with scene.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = :now - interval '2 h', expires_at = :now"
            " WHERE id = :id",
            id=expired,
        )
    bulk.work()
    assert bulk.reasons(plan) == {
        deleted: "key_deleted",
        held: "key_held",
        rotated: "in_rotation",
        expired: "key_expired",
        fits: None,
    }
    done = bulk.find(plan)
    assert (done.state, done.issued, done.skipped, done.failed) == ("completed", 1, 4, 0)


def test_the_pace_is_kept(scene: Scene) -> None:
    bulk = Bulk(scene, bulk_rate=5.0)
    for _ in range(3):
        scene.key()
    bulk.applied()
    assert bulk.work() == 1
    assert bulk.turn() == Turn(pause=FIFTH)
    scene.later(FIFTH - timedelta(microseconds=1))
    assert bulk.turn() == Turn(pause=timedelta(microseconds=1))
    scene.later(timedelta(microseconds=1))
    assert bulk.work() == 1


def test_the_pace_is_that_of_all_operations(scene: Scene) -> None:
    bulk = Bulk(scene, bulk_rate=5.0)
    bob = scene.account("bob@example.com")
    for account in (scene.owner, bob):
        scene.key(account=account), scene.key(account=account)
    plans = [bulk.applied(Selection(account=account)) for account in (scene.owner, bob)]
    scene.later(SECOND)
    for _ in range(4):
        assert bulk.work() == 1
        counts = [bulk.find(plan).issued for plan in plans]
        assert abs(counts[0] - counts[1]) <= 1  # they take turns
        scene.later(FIFTH)
    bulk.work()
    assert [bulk.find(plan).state for plan in plans] == ["completed"] * 2


def operations_of(account: UUID) -> Any:
    from models.operations import Selection

    return Selection(account=account)


def test_who_claimed_too_early_gives_the_key_back(scene: Scene) -> None:
    bulk = Bulk(scene, bulk_rate=5.0)
    scene.key(), scene.key()
    plan = bulk.applied()
    first, second = bulk.claim(), bulk.claim()
    assert bulk.issue(first) is True
    assert bulk.issue(second) is False
    assert [(row["state"], row["attempts"]) for row in bulk.rows(plan)] == [
        ("issued", 1),
        ("waiting", 0),
    ]
    scene.later(FIFTH)
    assert bulk.work() == 1


def test_a_clock_that_was_set_back_holds_nobody_up_for_long(scene: Scene) -> None:
    bulk = Bulk(scene, bulk_rate=5.0)
    scene.key(), scene.key()
    bulk.applied()
    scene.later(HOUR)
    assert bulk.work() == 1
    scene.later(-HOUR)
    assert bulk.work() == 1


def test_a_dead_workers_key_is_issued_when_its_lease_has_ended(scene: Scene, bulk: Bulk) -> None:
    scene.key(), scene.key()
    plan = bulk.applied()
    dead = bulk.claim()
    assert bulk.work() == 1
    assert bulk.find(plan).waits_for == "retries"
    scene.later(bulk.policy.lease)
    assert bulk.work() == 1
    assert bulk.find(plan).state == "completed"
    assert bulk.issue(dead) is False  # it was not dead, only slow
    assert len(scene.sql("SELECT FROM keyturn.rotations")) == 2


def test_a_slow_worker_issues_nothing_that_another_has_taken_over(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.applied()
    slow = bulk.claim()
    scene.later(bulk.policy.lease)
    quick = bulk.claim()
    assert bulk.issue(slow) is False
    assert scene.sql("SELECT FROM keyturn.rotations") == []
    assert bulk.issue(quick) is True
    assert [(row["fence"], row["state"]) for row in bulk.rows(plan)] == [(quick.fence, "issued")]


def test_a_key_that_its_workers_die_of_fails_in_the_end(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.applied()
    for _ in range(3):
        bulk.claim()
        scene.later(bulk.policy.lease)
    assert bulk.work() == 0
    found = bulk.find(plan)
    assert (found.state, found.failed) == ("stopped", 1)
    assert found.stop_reason == "1 of 1 keys of wave 1 failed: no_answer"


def test_a_key_of_a_busy_account_is_put_off(scene: Scene, bulk: Bulk) -> None:
    bob = scene.account("bob@example.com")
    scene.key(account=bob, name="b"), scene.key(name="a")
    plan = bulk.applied()
    with scene.database.begin() as tx:
        tx.execute("SELECT FROM keyturn.accounts WHERE id = :id FOR NO KEY UPDATE", id=bob)
        bulk.work()
        assert {row["name"]: (row["state"], row["attempts"]) for row in bulk.rows(plan)} == {
            "a": ("issued", 1),
            "b": ("waiting", 0),
        }
    scene.later(2 * SECOND)
    bulk.work()
    assert bulk.find(plan).state == "completed"


def test_what_fails_is_tried_three_times(
    scene: Scene, bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.key(name="bad")
    plan = bulk.applied()
    fails(monkeypatch, "bad", error=KeyError("a word"))
    tried = []
    for _ in range(20):
        bulk.work()
        tried += [row["attempts"] for row in bulk.rows(plan)][-1:]
        scene.later(SECOND)
    assert [tried.count(n) for n in (1, 2)] == [5, 10]
    assert bulk.find(plan).stop_reason == "1 of 1 keys of wave 1 failed: KeyError"
    assert scene.sql("SELECT FROM keyturn.rotations") == []


def test_what_the_server_fails_at_costs_no_try(
    scene: Scene, bulk: Bulk, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.key(name="bad")
    plan = bulk.applied()
    fails(monkeypatch, "bad", error=OperationalError("no server", {}, Exception()))
    for _ in range(5):
        with pytest.raises(OperationalError):
            bulk.work()
    assert [(row["attempts"], row["state"]) for row in bulk.rows(plan)] == [(0, "waiting")]


@pytest.mark.parametrize(("bad", "stops"), [(1, False), (2, True)])
def test_it_stops_where_more_than_a_tenth_of_a_wave_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, bad: int, stops: bool
) -> None:
    bulk = Bulk(scene, wave_keys=10)
    for number in range(20):
        scene.key((90 + number) * DAY, name=f"k{number}")
    plan = bulk.applied()
    fails(monkeypatch, *[f"k{number}" for number in range(bad)], error=KeyError("a word"))
    for _ in range(30):
        bulk.work()
        scene.later(SECOND)
    found = bulk.find(plan)
    if not stops:
        assert (found.state, found.issued, found.failed) == ("completed", 19, 1)
        return
    assert (found.state, found.wave, found.issued, found.failed) == ("stopped", 1, 8, 2)
    assert found.stop_reason == "2 of 10 keys of wave 1 failed: KeyError"
    [letter] = scene.mails("operation.issued")
    assert letter["total"] == 8
    monkeypatch.undo()
    assert bulk.work() == 0
    bulk.resume(plan)
    bulk.work()
    found = bulk.find(plan)
    assert (found.state, found.issued, found.failed, found.stop_reason) == (
        *("completed", 20, 0),
        None,
    )


def test_a_stop_is_an_alarm(scene: Scene, bulk: Bulk, monkeypatch: pytest.MonkeyPatch) -> None:
    alarms: list[dict[str, object]] = []
    scene.database.on_alarm = alarms.append
    scene.key(name="bad")
    plan = bulk.applied()
    fails(monkeypatch, "bad", error=KeyError("a word"))
    for _ in range(20):
        bulk.work()
        scene.later(SECOND)
    assert alarms == [
        {
            "alarm": "operation_stopped",
            "operation": str(plan.id),
            "why": "1 of 1 keys of wave 1 failed: KeyError",
        }
    ]


def sink(scene: Scene, change: str, **params: Any) -> None:
    """What becomes of the hand-overs, as their flow writes it."""
    with scene.database.begin() as tx:
        assert tx.count(f"UPDATE keyturn.rotations SET {change}", **params)


def test_a_wave_waits_for_its_sinks_but_not_for_claims(scene: Scene, bulk: Bulk) -> None:
    for _ in range(4):
        scene.key()
    plan = bulk.applied()
    bulk.work(3)
    sink(scene, "sink = 'file'")
    assert bulk.work() == 0
    found = bulk.find(plan)
    assert (found.state, found.wave, found.waits_for) == ("running", 1, "hand_overs")
    sink(scene, "claimed_at = :now, sealed = NULL, sealed_kek = NULL")
    assert bulk.work() == 1
    assert bulk.find(plan).state == "completed"


def test_hand_overs_that_fail_stop_it(scene: Scene, bulk: Bulk) -> None:
    for _ in range(4):
        scene.key()
    plan = bulk.applied()
    bulk.work(3)
    sink(scene, "sink = 'file'")
    sink(scene, "blocked_reason = 'hand_over_failed'")
    assert bulk.work() == 0
    found = bulk.find(plan)
    assert (found.state, found.failed, found.not_handed_over) == ("stopped", 0, 3)
    assert found.stop_reason == "3 of 3 keys of wave 1 failed: hand_over_failed"
    named = scene.database.run(lambda tx: operations.unrotated(tx, plan.id))
    assert {(one.state, one.reason) for one in named} == {("failed", "hand_over_failed")}
    bulk.resume(plan)  # a person has seen them, and has the hand-overs tried again
    assert bulk.work() == 1
    assert bulk.find(plan).state == "completed"


def named(tx: Any, operation_id: UUID) -> Any:
    from models import operations

    return operations.unrotated(tx, operation_id)


def test_a_secret_that_went_with_its_account_keeps_no_wave(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.applied()
    bulk.work(1)
    sink(scene, "sink = 'file'")
    scene.hold()
    scene.advance()
    bulk.work()
    assert bulk.find(plan).state == "completed"


def test_nothing_is_started_while_it_is_paused(scene: Scene, bulk: Bulk) -> None:
    for number in range(4):
        scene.key((90 + number) * DAY, name=f"k{number}")
    plan = bulk.applied()
    bulk.work(1)
    claimed = bulk.claim()
    assert bulk.pause(plan).state == "paused"
    assert bulk.pause(plan).state == "paused"
    assert bulk.issue(claimed) is False
    assert bulk.work() == 0
    assert bulk.letters() == [("ada@example.com", ["k0"])]  # its deadline runs meanwhile
    assert bulk.resume(plan).state == "running"
    assert bulk.resume(plan).state == "running"
    assert bulk.work() == 3
    assert sorted(names for _, names in bulk.letters()) == [["k0"], ["k1", "k2"], ["k3"]]
    assert [bulk.refusal(verb, plan).code for verb in (bulk.pause, bulk.resume, bulk.cancel)] == [
        *("plan_not_running", "plan_not_running", "plan_ended")
    ]


def test_cancelled_what_is_not_started_is_not_started(scene: Scene, bulk: Bulk) -> None:
    for number in range(4):
        scene.key((90 + number) * DAY, name=f"k{number}")
    plan = bulk.applied()
    bulk.work(2)
    cancelled = bulk.cancel(plan)
    assert (cancelled.state, cancelled.issued, cancelled.waiting) == ("cancelled", 2, 2)
    assert cancelled.stop_reason == "operator: not needed"
    assert bulk.cancel(plan).state == "cancelled"
    assert bulk.work() == 0
    assert bulk.letters() == [("ada@example.com", ["k0", "k1"])]
    assert {row["state"] for row in scene.sql("SELECT state FROM keyturn.rotations")} == {"issued"}
    assert bulk.refusal(bulk.apply, plan).code == "plan_cancelled"
    assert bulk.refusal(bulk.resume, plan).code == "plan_not_running"


def test_a_plan_is_cancelled_before_it_is_applied(scene: Scene, bulk: Bulk) -> None:
    scene.key()
    plan = bulk.plan()
    assert bulk.refusal(bulk.pause, plan).message.endswith("apply it first")
    assert bulk.cancel(plan).state == "cancelled"
    assert bulk.work() == 0


def test_the_rate_is_that_of_late(scene: Scene, bulk: Bulk) -> None:
    for _ in range(6):
        scene.key()
    plan = bulk.applied()
    bulk.work(4)
    assert bulk.find(plan).rate == 4.0  # in less than a second
    scene.later(10 * SECOND)
    assert bulk.find(plan).rate == 0.4
    scene.later(20 * SECOND)
    bulk.work(1)
    assert bulk.find(plan).rate == pytest.approx(1 / 30)
