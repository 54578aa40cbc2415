"""Rotations by policy: planned, started in their time, window and pace, or said why not."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from models import (
    roles,
    rotation_choice,
    rotation_requests,
    rotation_schedule,
    rotation_starts,
    rotations,
)
from models.base import Database
from models.errors import Refused
from models.invariants import check
from models.key_text import Peppers
from models.keyring import Keyring
from models.policy import Policy
from models.roles import Role
from models.rotation_policy import RotationPolicy
from models.rotation_starts import Scheduled
from models.rotation_times import parse_rotate
from models.sealing import Sealer
from models.windows import parse_window
from tasks import Runtime, flows, run
from tests.models.scene import DAY, HOUR, MINUTE, OWNER, ROLES, Scene, frozen_scene
from tests.world import World

FLOW = "rotations.start_due"
POLICIES = {
    "default": RotationPolicy(),
    "life": RotationPolicy(rotate=parse_rotate("2/3")),
    "ahead": RotationPolicy(rotate=parse_rotate("14d")),
    "office": RotationPolicy(
        rotate=parse_rotate("2/3"), window=parse_window("mon-fri 09:00-17:00 Europe/Berlin")
    ),
    "sundays": RotationPolicy(
        rotate=parse_rotate("2/3"), window=parse_window("sun 00:00-01:00 UTC")
    ),
}


@pytest.fixture
def scene(database_url: str) -> Iterator[Scene]:
    with frozen_scene(database_url, Policy(rotation_policies=POLICIES)) as made:
        yield made


def tick(scene: Scene, times: int = 1) -> int:
    """Runs of the flow as the schedule does them; how many things they changed."""
    keyring = Keyring(scene.peppers, scene.sealer)
    runtime = Runtime(scene.database, scene.policy, keyring, channels={})
    with capture_logs():
        return sum(run(flows()[FLOW], runtime) for _ in range(times))


def choose(scene: Scene, name: str | None, key: UUID | None = None) -> bool:
    """An operator chooses a policy for a key, or for the owner's account."""
    choice = {"actor": "op", "policy": scene.policy}
    with scene.database.begin() as tx:
        if key is None:
            return rotation_choice.for_account(tx, OWNER, name, **choice)  # type: ignore[arg-type]
        return rotation_choice.for_key(tx, str(key), name, **choice)  # type: ignore[arg-type]


def default(scene: Scene, name: str) -> None:
    """The settings change: what nobody chose for follows another policy."""
    scene.policy = replace(scene.policy, rotation_policies={**POLICIES, "default": POLICIES[name]})


def plans(scene: Scene) -> dict[UUID, Mapping[str, Any]]:
    rows = scene.sql("SELECT * FROM keyturn.rotation_schedule")
    return {row["key_id"]: row for row in rows}


def reason(scene: Scene, key: UUID) -> str | None:
    return plans(scene)[key]["reason"]  # type: ignore[no-any-return]


def rotated(scene: Scene) -> dict[UUID, Mapping[str, Any]]:
    rows = scene.sql("SELECT * FROM keyturn.rotations ORDER BY id")
    return {row["old_key_id"]: row for row in rows}


def until(scene: Scene, moment: datetime) -> None:
    scene.clock.move_to(moment)


def due(scene: Scene, key: UUID) -> datetime:
    """When a key is planned to be rotated."""
    at: datetime = plans(scene)[key]["rotate_at"]
    return at


# Which policy


def test_nothing_is_planned_and_written_where_no_policy_rotates(scene: Scene) -> None:
    scene.policy = Policy()
    for _ in range(3):
        scene.key()
    assert tick(scene, 2) == 0
    assert plans(scene) == {}
    [before] = scene.sql("SELECT mark FROM keyturn.schedule_runs WHERE job = :job", job=FLOW)
    scene.later(3 * DAY)
    tick(scene)
    [after] = scene.sql("SELECT mark FROM keyturn.schedule_runs WHERE job = :job", job=FLOW)
    assert before == after


def test_the_keys_choice_wins_over_the_accounts_and_that_over_the_roles(scene: Scene) -> None:
    first, second = scene.key(), scene.key()
    other = scene.account("bob@example.com")
    third, fourth = scene.key(account=other), scene.key(account=other, role="writer")
    with scene.database.begin() as tx:
        roles.sync(tx, {**ROLES, "reader": Role("reader", ("read",), rotation_policy="life")})
    tick(scene)
    assert {key: plan["policy"] for key, plan in plans(scene).items()} == dict.fromkeys(
        (first, second, third), "life"
    )
    choose(scene, "ahead")
    choose(scene, "office", first)
    tick(scene)
    assert {key: plan["policy"] for key, plan in plans(scene).items()} == {
        first: "office",
        second: "ahead",
        third: "life",
    }
    choose(scene, "default", second)
    choose(scene, None)
    choose(scene, None, first)
    tick(scene)
    assert {key: plan["policy"] for key, plan in plans(scene).items()} == {
        first: "life",
        third: "life",
    }
    default(scene, "ahead")
    tick(scene)
    assert {key: plan["policy"] for key, plan in plans(scene).items()} == {
        first: "life",
        second: "default",
        third: "life",
        fourth: "default",
    }


def test_a_policy_that_the_settings_no_longer_name_means_the_default_one(scene: Scene) -> None:
    key = scene.key()
    choose(scene, "life", key)
    tick(scene)
    kept = {name: one for name, one in POLICIES.items() if name != "life"}
    scene.policy = replace(scene.policy, rotation_policies=kept)
    tick(scene)
    assert plans(scene) == {}
    kept["default"] = POLICIES["ahead"]
    scene.policy = replace(scene.policy, rotation_policies=dict(kept))
    tick(scene)
    assert plans(scene)[key]["policy"] == "default"


def test_a_choice_is_checked_and_audited(scene: Scene) -> None:
    key = scene.key()
    with pytest.raises(Refused) as error:
        choose(scene, "yearly", key)
    assert error.value.code == "policy_unknown"
    assert "ahead, default, life, office, sundays" in error.value.message
    assert choose(scene, "life", key)
    assert not choose(scene, "life", key)
    assert choose(scene, None, key)
    said = scene.sql(
        "SELECT action, why FROM keyturn.audit WHERE action LIKE '%policy%' ORDER BY id"
    )
    assert [(row["action"], row["why"]) for row in said] == [
        ("key.policy_chosen", "life"),
        ("key.policy_chosen", "none"),
    ]
    scene.delete(key)
    with pytest.raises(Refused) as error:
        choose(scene, "life", key)
    assert error.value.code == "key_deleted"


# When


def test_a_key_is_rotated_in_its_time_and_not_before(scene: Scene) -> None:
    key = scene.key()
    choose(scene, "life")
    tick(scene)
    planned = due(scene, key)
    assert 54 * DAY <= planned - scene.now() <= 60 * DAY
    until(scene, planned - MINUTE)
    tick(scene)
    assert rotated(scene) == {}
    until(scene, planned)
    assert tick(scene) > 0
    [rotation] = rotated(scene).values()
    assert (rotation["old_key_id"], rotation["reason"]) == (key, "scheduled")
    assert rotation["requested_by"] == "keyturn"
    assert [mail["key"]["id"] for mail in scene.told("rotation.issued")] == [str(key)]
    assert plans(scene)[key]["rotation_id"] == rotation["id"]
    assert tick(scene, 3) == 0 or len(rotated(scene)) == 1


def test_the_successor_follows_the_same_policy_and_is_planned_for_itself(scene: Scene) -> None:
    key = scene.key()
    choose(scene, "ahead", key)
    tick(scene)
    until(scene, due(scene, key))
    tick(scene)
    [rotation] = rotated(scene).values()
    successor = rotation["new_key_id"]
    assert scene.find_key(successor).rotation_policy == "ahead"
    tick(scene)
    assert due(scene, successor) > scene.now() + 60 * DAY


def test_new_keys_are_planned_without_going_through_all(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation_schedule, "PAGE", 3)
    default(scene, "life")
    old = [scene.key() for _ in range(8)]
    tick(scene)
    assert set(plans(scene)) == set(old)
    scene.later(HOUR)
    tick(scene)  # from here on the old ones lie behind
    with scene.database.begin() as tx:
        tx.execute("DELETE FROM keyturn.rotation_schedule")
    new = scene.key()
    tick(scene)
    assert set(plans(scene)) == {new}
    scene.later(DAY)
    tick(scene)
    assert set(plans(scene)) == {new, *old}, "once a day all are gone through"


def test_keys_that_end_lose_their_plan(scene: Scene) -> None:
    default(scene, "life")
    deleted, kept = scene.key(), scene.key()
    tick(scene)
    scene.delete(deleted)
    until(scene, due(scene, kept) - HOUR)
    tick(scene)
    assert set(plans(scene)) == {kept}


def test_a_rotation_is_not_started_twice_however_often_it_is_tried(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    until(scene, due(scene, key))
    tick(scene)
    with scene.database.begin() as tx:  # as if the answer had been lost
        tx.execute(
            "UPDATE keyturn.rotation_schedule SET rotation_id = NULL, next_at = :now"
            " WHERE key_id = :key",
            key=key,
        )
    tick(scene, 2)
    assert len(scene.sql("SELECT id FROM keyturn.rotations")) == 1


def is_overdue(scene: Scene) -> bool:
    """Whether it looks as if nobody started what is due."""
    found = check(scene.database, scene.policy, full=True)
    return "scheduled_start" in [one.name for one in found]


def test_a_key_that_is_overdue_when_it_is_planned_breaks_no_promise(scene: Scene) -> None:
    """It was imported late in its life, or its policy was changed."""
    key = scene.key()
    scene.later(80 * DAY)
    default(scene, "life")
    tick(scene)
    assert key not in rotated(scene)
    assert not is_overdue(scene)
    tick(scene)
    assert key in rotated(scene)


def test_a_choice_that_no_worker_has_seen_yet_breaks_no_promise(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    scene.later(10 * DAY)
    choose(scene, "ahead", key)
    assert not is_overdue(scene)
    scene.later(6 * MINUTE)
    assert is_overdue(scene)


def test_an_operators_rotation_before_counts(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    until(scene, due(scene, key))
    rotation = scene.request(key)
    tick(scene)
    assert plans(scene)[key]["rotation_id"] == rotation.id
    assert len(rotated(scene)) == 1


# In which hours


def test_it_starts_in_the_window_only(scene: Scene) -> None:
    default(scene, "office")
    keys = [scene.key(life * DAY) for life in range(6, 14)]
    tick(scene)
    window = POLICIES["office"].window
    assert window is not None
    for key in keys:
        assert window.contains(due(scene, key))
    last = max(due(scene, key) for key in keys)
    while scene.now() < last + DAY:
        before = set(rotated(scene))
        scene.later(5 * HOUR)
        tick(scene)
        assert set(rotated(scene)) == before or window.contains(scene.now())
    assert set(rotated(scene)) >= set(keys)


def test_after_a_downtime_it_waits_for_the_window_to_open(scene: Scene) -> None:
    default(scene, "office")
    key = scene.key()
    tick(scene)
    planned = due(scene, key)
    friday = planned + (4 - planned.weekday()) % 7 * DAY
    until(scene, friday.replace(hour=20, minute=0))
    tick(scene)
    assert (rotated(scene), reason(scene, key)) == ({}, "outside_window")
    until(scene, plans(scene)[key]["next_at"] - MINUTE)
    tick(scene)
    assert rotated(scene) == {}
    scene.later(MINUTE)
    assert scene.now().strftime("%a") == "Mon"
    tick(scene)
    assert set(rotated(scene)) == {key}


def test_a_key_that_its_window_never_meets_says_so(scene: Scene) -> None:
    default(scene, "sundays")
    until(scene, datetime(2026, 3, 2, 12, tzinfo=UTC))  # a Monday
    key = scene.key(2 * DAY)
    tick(scene)
    assert reason(scene, key) == "window_closed"
    scene.later(47 * HOUR)
    tick(scene)
    assert rotated(scene) == {}


# At which pace


def test_an_installation_that_is_switched_on_late_does_not_rotate_all_at_once(
    scene: Scene,
) -> None:
    scene.policy = replace(scene.policy, rotation_starts=5)
    for _ in range(23):
        scene.key()
    scene.later(80 * DAY)
    default_before = scene.policy
    default(scene, "life")
    assert default_before.rotation_starts == scene.policy.rotation_starts
    tick(scene, 2)
    assert len(rotated(scene)) == 5
    for _ in range(3):
        scene.later(timedelta(seconds=15))
        tick(scene)
    assert len(rotated(scene)) == 5
    counts = []
    while len(rotated(scene)) < 23:
        scene.later(MINUTE)
        before = len(rotated(scene))
        tick(scene, 2)
        counts.append(len(rotated(scene)) - before)
    assert counts == [5, 5, 5, 3]


# Why not


@pytest.mark.parametrize("which", ["account", "key"])
def test_what_is_held_waits_and_is_not_looked_at_again_and_again(scene: Scene, which: str) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    held = key if which == "key" else None
    scene.hold(key=held)
    until(scene, due(scene, key))
    assert tick(scene) == 1
    assert (rotated(scene), reason(scene, key)) == ({}, f"{which}_held")
    assert tick(scene, 3) == 0
    scene.lift(key=held)
    scene.later(HOUR)
    tick(scene)
    assert set(rotated(scene)) == {key}


def test_a_hold_between_the_look_and_the_start_is_seen(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    until(scene, due(scene, key))
    with scene.database.begin() as tx:
        assert rotation_starts.look(tx, scene.policy).to_start == [key]
    scene.hold()
    keys = {"policy": scene.policy, "sealer": scene.sealer, "peppers": scene.peppers}
    with scene.database.begin() as tx:
        assert not rotation_starts.start(tx, key, **keys)  # type: ignore[arg-type]
    assert rotated(scene) == {}


def test_a_role_that_was_narrowed_is_a_reason_and_is_tried_again_in_a_day(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key(role="writer")
    tick(scene)
    until(scene, due(scene, key))
    with scene.database.begin() as tx:
        roles.sync(tx, {**ROLES, "writer": Role("writer", ("read", "write"), grantable=False)})
    tick(scene)
    assert (rotated(scene), reason(scene, key)) == ({}, "role_not_allowed")
    scene.later(HOUR)
    assert tick(scene, 3) == 0
    with scene.database.begin() as tx:
        roles.sync(tx, ROLES)
    scene.later(DAY)
    tick(scene)
    assert set(rotated(scene)) == {key}


def test_a_key_that_lives_too_short_says_so_and_is_left_alone(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key(30 * MINUTE)
    tick(scene)
    scene.later(25 * MINUTE)
    tick(scene)
    assert (rotated(scene), reason(scene, key)) == ({}, "too_short_lived")
    assert plans(scene)[key]["next_at"] is None


def test_a_successor_whose_predecessor_is_still_draining_waits(scene: Scene) -> None:
    """Its own time has come, but the family is in rotation: the wait for a person, say."""
    scene.policy = replace(scene.policy, rotation_overlap=30 * DAY)
    key = scene.key(10 * DAY)
    rotation = scene.request(key)
    scene.claimed(key)
    scene.use(rotation.new_key_id)
    scene.advance()
    choose(scene, "life", rotation.new_key_id)
    scene.later(7 * DAY)
    tick(scene)
    assert reason(scene, rotation.new_key_id) == "in_rotation"
    assert len(rotated(scene)) == 1


def test_an_error_stops_no_other_key_and_is_an_alarm(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    default(scene, "life")
    bad, good = sorted((scene.key(), scene.key()), key=str)
    tick(scene)
    until(scene, max(due(scene, bad), due(scene, good)))
    issue = rotation_requests.issue

    def failing(tx: Any, key: Any, *args: Any, **more: Any) -> Any:
        if key.id == bad:
            raise RuntimeError("broken")
        return issue(tx, key, *args, **more)

    monkeypatch.setattr(rotation_requests, "issue", failing)
    alarms: list[dict[str, object]] = []
    scene.database.on_alarm = alarms.append
    tick(scene)
    assert set(rotated(scene)) == {good}
    assert reason(scene, bad) == "failed"
    said = {"alarm": "scheduled_rotation_failed", "key": str(bad), "error": "RuntimeError"}
    assert alarms == [said]
    scene.later(MINUTE)
    tick(scene)
    assert alarms == [said], "told once"
    monkeypatch.undo()
    scene.later(MINUTE)
    tick(scene)
    assert set(rotated(scene)) == {good, bad}


def test_a_hold_that_took_the_successor_away_is_no_end_of_the_schedule(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    until(scene, due(scene, key))
    tick(scene)
    scene.hold()
    scene.advance()
    scene.lift()
    scene.advance()
    [first] = rotated(scene).values()
    assert first["cancel_reason"] == "account_held"
    scene.later(DAY)
    tick(scene, 2)
    states = scene.sql("SELECT state FROM keyturn.rotations ORDER BY id")
    assert [row["state"] for row in states] == ["cancelled", "issued"]


def test_what_nobody_claimed_is_not_rotated_again_and_again(scene: Scene) -> None:
    default(scene, "life")
    key = scene.key()
    tick(scene)
    until(scene, due(scene, key))
    tick(scene)
    scene.later(scene.policy.sealed_for)
    scene.advance()
    for _ in range(3):
        scene.later(2 * DAY)
        tick(scene)
    [rotation] = rotated(scene).values()
    assert rotation["cancel_reason"] == "unclaimed"


# What is said


def says(scene: Scene, key: UUID) -> Scheduled | None:
    with scene.database.begin() as tx:
        return rotation_starts.next_for(tx, key, scene.policy)


def test_it_can_be_said_when_a_key_will_be_rotated_and_why_not(scene: Scene) -> None:
    key, never = scene.key(), scene.key()
    choose(scene, "life", key)
    assert says(scene, never) is None
    before = says(scene, key)  # nothing was planned yet
    tick(scene)
    assert says(scene, key) == before == Scheduled("life", due(scene, key), None, None)
    until(scene, due(scene, key))
    scene.hold()
    tick(scene)
    assert says(scene, key) == Scheduled("life", scene.now() + HOUR, "account_held", None)
    scene.lift()
    scene.later(HOUR)
    tick(scene)
    assert says(scene, key) == Scheduled("life", None, None, rotated(scene)[key]["id"])
    scene.delete(key)
    assert says(scene, key) is None


def test_a_notice_of_expiry_of_a_rotated_key_is_skipped(scene: Scene) -> None:
    from models import notices

    default(scene, "ahead")
    key = scene.key(60 * DAY)
    tick(scene)
    until(scene, due(scene, key))
    tick(scene)
    [rotation] = rotated(scene).values()
    scene.claimed(key)
    scene.use(rotation["new_key_id"])
    scene.advance()
    scene.later(8 * DAY)
    after: Any = None
    with scene.database.begin() as tx:
        while True:
            page = notices.plan(tx, scene.policy, after)
            after = page.after
            if after is None:
                break
    said = scene.sql(
        "SELECT DISTINCT state, reason FROM keyturn.notices WHERE key_id = :key"
        " AND state <> 'superseded'",
        key=key,
    )
    assert [(row["state"], row["reason"]) for row in said] == [("skipped", "replaced")]


# By the database's own clock


def test_it_works_by_the_databases_clock_too(database_url: str) -> None:
    world = World(Database(database_url))
    world.account()
    old, _ = world.key()
    with world.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = :now - interval '80 days',"
            " expires_at = :now + interval '10 days'"
        )
    policy = Policy(rotation_policies={"default": POLICIES["life"]})
    keyring = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))
    runtime = Runtime(world.database, policy, keyring, channels={})
    with capture_logs():
        run(flows()[FLOW], runtime)
        run(flows()[FLOW], runtime)
    with world.database.begin() as tx:
        assert [one.old_key_id for one in rotations.listed(tx)] == [old]
