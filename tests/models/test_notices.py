"""Who is told of the end of a key, when and how often (rules 4.1, 4.2)."""

import json
import random
from dataclasses import replace
from datetime import timedelta

import pytest

from models import notices
from models.notices import EXPIRED, EXPIRING
from tests.models.notice_verbs import expire, ledger, names, plan, reasons, states
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, START, Scene

SECOND = timedelta(seconds=1)

# 4.1: thresholds


def test_thirty_seven_and_one_day_before_the_end(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    seen = []
    for left in (31, 30, 29, 8, 7, 6, 2, 1, 0):
        scene.clock.move_to(START + (90 - left) * DAY)
        if plan(scene):
            seen.append(left)
    assert seen == [30, 7, 1, 0]
    assert set(states(scene, key)) == {30 * DAY, 7 * DAY, DAY, 0 * DAY}


def test_a_threshold_is_found_by_range_not_by_equality(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY - SECOND)
    assert plan(scene) == 0
    scene.later(5 * DAY)
    assert plan(scene) == 1
    assert states(scene, key) == {30 * DAY: "planned"}


@pytest.mark.parametrize(
    ("life", "thresholds"),
    [
        (60 * DAY, {30 * DAY, 7 * DAY, DAY}),
        (60 * DAY - SECOND, {7 * DAY, DAY}),
        (14 * DAY, {7 * DAY, DAY}),
        (14 * DAY - SECOND, {DAY}),
        (2 * DAY, {DAY}),
        (2 * DAY - 5 * SECOND, {0.2 * (2 * DAY - 5 * SECOND)}),
        (DAY, {0.2 * DAY}),
        (DAY - SECOND, set()),
        (MINUTE, set()),
    ],
)
def test_a_threshold_applies_if_it_is_at_most_half_of_the_life(
    scene: Scene, life: timedelta, thresholds: set[timedelta]
) -> None:
    key = scene.key(life)
    # At these moments each threshold that applies is due, and no larger one was missed.
    for left in sorted({30 * DAY, 7 * DAY, DAY, 0.2 * life}, reverse=True):
        if left < life:
            scene.clock.move_to(START + life - left)
            plan(scene)
    planned = set(states(scene, key)) - {timedelta(0)}
    assert {round(t.total_seconds()) for t in planned} == {
        round(t.total_seconds()) for t in thresholds
    }


def test_a_key_of_a_day_gets_its_one_notice_at_a_fifth_of_its_life(scene: Scene) -> None:
    scene.key(30 * HOUR)
    scene.later(24 * HOUR - SECOND)
    assert plan(scene) == 0
    scene.later(SECOND)
    assert plan(scene) == 1
    [mail] = scene.mails(EXPIRING)
    assert mail["threshold"] == "6h"


def test_a_shorter_key_gets_none_not_even_at_its_end(scene: Scene) -> None:
    life = 24 * HOUR - SECOND
    scene.key(life)
    for passed in (0.8 * life, life - SECOND, life, life + HOUR):
        scene.clock.move_to(START + passed)
        assert plan(scene) == 0


def test_second_sized_thresholds(scene: Scene) -> None:
    scene.policy = replace(scene.policy, notice_thresholds=(20 * SECOND,))
    key = scene.key(MINUTE)
    scene.later(39 * SECOND)
    assert plan(scene) == 0
    scene.later(SECOND)
    assert plan(scene) == 1
    [mail] = scene.mails(EXPIRING)
    assert mail["threshold"] == "20s"
    scene.later(20 * SECOND)
    assert plan(scene) == 1
    assert states(scene, key) == {20 * SECOND: "planned", timedelta(0): "planned"}


def test_without_thresholds_every_longer_key_gets_one(scene: Scene) -> None:
    scene.policy = replace(scene.policy, notice_thresholds=())
    scene.key(100 * DAY)
    scene.later(80 * DAY - SECOND)
    assert plan(scene) == 0
    scene.later(SECOND)
    assert plan(scene) == 1


# the end itself


def test_the_owner_is_told_that_a_key_has_expired(scene: Scene) -> None:
    key = scene.key(2 * DAY, name="ci")
    scene.later(2 * DAY)
    expire(scene)
    plan(scene)
    [mail] = scene.mails(EXPIRED)
    assert (mail["account"], mail["total"], names(mail)) == (OWNER, 1, ["ci"])
    assert states(scene, key)[timedelta(0)] == "planned"
    assert plan(scene) == 0
    assert len(scene.mails(EXPIRED)) == 1


def test_whether_or_not_the_sweep_has_marked_it(scene: Scene) -> None:
    scene.key(2 * DAY)
    scene.later(2 * DAY)
    plan(scene)
    assert len(scene.mails(EXPIRED)) == 1
    expire(scene)
    assert plan(scene) == 0


def test_an_end_a_week_ago_is_no_news(scene: Scene) -> None:
    scene.key(2 * DAY)
    scene.later(9 * DAY + SECOND)
    expire(scene)
    assert plan(scene) == 0


# 4.2: an intent, once


def test_each_notice_is_planned_once(scene: Scene) -> None:
    scene.key(90 * DAY)
    scene.later(60 * DAY)
    assert [plan(scene) for _ in range(3)] == [1, 0, 0]
    assert len(scene.mails(EXPIRING)) == 1


def test_after_downtime_only_the_most_urgent_goes_out(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(89 * DAY + HOUR)
    assert plan(scene) == 3
    assert states(scene, key) == {
        30 * DAY: "superseded",
        7 * DAY: "superseded",
        DAY: "planned",
    }
    [mail] = scene.mails(EXPIRING)
    assert mail["threshold"] == "1d"


def test_after_a_longer_downtime_only_the_end_is_told(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(91 * DAY)
    plan(scene)
    assert states(scene, key)[timedelta(0)] == "planned"
    assert list(states(scene, key).values()).count("superseded") == 3
    assert scene.mails(EXPIRING) == []


def test_a_threshold_added_later_is_not_sent_after_a_smaller_one(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(83 * DAY)
    plan(scene)
    scene.policy = replace(scene.policy, notice_thresholds=(40 * DAY, 7 * DAY))
    plan(scene)
    assert states(scene, key)[40 * DAY] == "superseded"
    assert len(scene.mails(EXPIRING)) == 1


def test_a_held_key_is_skipped_with_the_reason(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.hold(key=key)
    scene.later(60 * DAY)
    plan(scene)
    assert (states(scene, key), reasons(scene, key)) == (
        {30 * DAY: "skipped"},
        {30 * DAY: "key_held"},
    )
    assert scene.mails(EXPIRING) == []


def test_a_key_of_a_held_account_is_skipped(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.hold()
    scene.later(60 * DAY)
    plan(scene)
    assert reasons(scene, key) == {30 * DAY: "account_held"}
    scene.lift()
    assert plan(scene) == 0  # what was skipped stays skipped, the next threshold counts
    scene.later(23 * DAY)
    plan(scene)
    assert states(scene, key)[7 * DAY] == "planned"


def test_a_replaced_key_is_skipped(scene: Scene) -> None:
    rotation = scene.draining(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    assert reasons(scene, rotation.old_key_id)[30 * DAY] == "replaced"
    assert states(scene, rotation.new_key_id)[30 * DAY] == "planned"


def test_a_key_whose_rotation_was_cancelled_is_not_replaced(scene: Scene) -> None:
    rotation = scene.request(scene.key(90 * DAY))
    scene.cancel(rotation)
    scene.later(60 * DAY)
    plan(scene)
    assert states(scene, rotation.old_key_id) == {30 * DAY: "planned"}


def test_a_deleted_key_gets_no_notice(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.delete(key)
    scene.later(60 * DAY)
    assert plan(scene) == 0
    assert scene.mails(EXPIRING) == []


def test_one_message_per_account_and_run(scene: Scene) -> None:
    bob = scene.account("bob@example.com")
    for number in range(3):
        scene.key(90 * DAY, name=f"key {number}")
    scene.key(90 * DAY, account=bob, name="bob's")
    scene.later(60 * DAY)
    plan(scene)
    mails = {mail["account"]: mail for mail in scene.mails(EXPIRING)}
    assert len(scene.mails(EXPIRING)) == 2
    assert sorted(names(mails[OWNER])) == ["key 0", "key 1", "key 2"]
    assert names(mails["bob@example.com"]) == ["bob's"]


def test_ends_and_warnings_are_two_messages(scene: Scene) -> None:
    scene.key(60 * DAY, name="ending")
    scene.later(28 * DAY)
    scene.key(2 * DAY, name="ended")
    scene.later(2 * DAY)
    plan(scene)
    assert [names(mail) for mail in scene.mails(EXPIRED)] == [["ended"]]
    assert [names(mail) for mail in scene.mails(EXPIRING)] == [["ending"]]


def test_it_names_a_hundred_keys_and_counts_all(scene: Scene) -> None:
    for _ in range(103):
        scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    [mail] = scene.mails(EXPIRING)
    assert (mail["total"], len(mail["keys"])) == (103, 100)


def test_the_keys_that_end_first_are_named(scene: Scene) -> None:
    scene.policy = replace(scene.policy, notice_keys=2)
    for days in (63, 61, 62):
        scene.key(days * DAY, name=f"{days} days")
    scene.later(60 * DAY)
    plan(scene)
    [mail] = scene.mails(EXPIRING)
    assert names(mail) == ["61 days", "62 days"]
    assert mail["total"] == 3
    key = mail["keys"][0]
    assert set(key) == {"id", "name", "hint", "expires_at"}
    assert key["expires_at"].startswith((START + 61 * DAY).isoformat()[:19])


def test_mixed_thresholds_are_announced_by_the_largest(scene: Scene) -> None:
    scene.key(90 * DAY)
    scene.key(67 * DAY)
    scene.later(60 * DAY)
    plan(scene)
    [mail] = scene.mails(EXPIRING)
    assert mail["threshold"] == "30d"


def test_a_run_of_many_pages_is_still_one_message(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "PAGE", 2)
    for days in (60, 60, 60, 61, 62):
        scene.key(days * DAY)
    for _ in range(3):
        scene.key(2 * DAY)
    scene.later(55 * DAY)
    plan(scene)
    [mail] = scene.mails(EXPIRING)
    assert (mail["total"], mail["threshold"]) == (5, "7d")
    assert len(ledger(scene, state="superseded")) == 5


def test_many_accounts_are_posted_in_batches(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "ACCOUNTS", 2)
    for number in range(5):
        scene.key(90 * DAY, account=scene.account(f"user{number}@example.com"))
    scene.later(60 * DAY)
    plan(scene)
    assert len(scene.mails(EXPIRING)) == 5


def test_what_a_death_left_unposted_is_posted_by_the_next_run(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene, post=False)
    assert scene.mails(EXPIRING) == []
    assert plan(scene) == 0
    assert [mail["keys"][0]["id"] for mail in scene.mails(EXPIRING)] == [str(key)]


def test_unless_a_more_urgent_one_came_meanwhile(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(60 * DAY)
    plan(scene, post=False)
    scene.later(23 * DAY)
    plan(scene)
    assert states(scene, key) == {30 * DAY: "superseded", 7 * DAY: "planned"}
    [mail] = scene.mails(EXPIRING)
    assert mail["threshold"] == "7d"


# Which keys a run looks at


def forget_notices(scene: Scene) -> None:
    with scene.database.begin() as tx:
        tx.execute("DELETE FROM keyturn.notices")


def test_a_run_looks_at_what_passed_a_threshold_since_the_last_and_daily_at_all(
    scene: Scene,
) -> None:
    scene.key(90 * DAY)
    scene.later(60 * DAY + HOUR)
    assert plan(scene) == 1
    forget_notices(scene)  # what has been told is not looked for again ...
    scene.later(2 * HOUR)
    assert plan(scene) == 0
    scene.later(22 * HOUR)
    assert plan(scene) == 1  # ... but once a day


def test_thresholds_that_changed_hold_from_the_next_run_on(scene: Scene) -> None:
    key = scene.key(90 * DAY)
    scene.later(50 * DAY)
    assert plan(scene) == 0
    scene.policy = replace(scene.policy, notice_thresholds=(45 * DAY, DAY))
    scene.later(HOUR)
    assert plan(scene) == 1
    assert set(states(scene, key)) == {45 * DAY}


def test_a_clock_that_went_back_leaves_nothing_out(scene: Scene) -> None:
    scene.key(90 * DAY)
    scene.later(80 * DAY)
    plan(scene)
    forget_notices(scene)
    scene.later(-15 * DAY)
    assert plan(scene) == 1


@pytest.mark.parametrize("seed", range(4))
def test_no_run_leaves_anything_to_one_that_looks_at_all(scene: Scene, seed: int) -> None:
    dice = random.Random(seed)
    lives = [dice.choice((HOUR, DAY, 2 * DAY - MINUTE, 3 * DAY, 20 * DAY)) for _ in range(40)]
    thresholds = ((30 * DAY, 7 * DAY, DAY), (2 * DAY, HOUR), (DAY, DAY - HOUR))[seed % 3]
    scene.policy = replace(scene.policy, notice_thresholds=thresholds)
    found = 0
    for life in lives:
        scene.key(life + dice.randrange(3_600) * SECOND)
        scene.later(dice.choice((MINUTE, 10 * MINUTE, HOUR, 5 * HOUR, 15 * HOUR)))
        if dice.random() < 0.5:
            expire(scene)
        found += plan(scene)
        with scene.database.begin() as tx:
            mark = tx.scalar("SELECT mark FROM keyturn.schedule_runs")
            tx.execute("UPDATE keyturn.schedule_runs SET mark = NULL")
        assert plan(scene) == 0
        with scene.database.begin() as tx:
            tx.execute(
                "UPDATE keyturn.schedule_runs SET mark = CAST(:mark AS jsonb)",
                mark=json.dumps(mark),
            )
    assert found > 20
