"""Every promise is silent while it is kept, and is the one that is reported when it is broken."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from psycopg import sql
from sqlalchemy.exc import DBAPIError

from models import holds, invariants
from models.invariants import PROMISES, Tolerance, check
from models.policy import Policy
from models.promises import Promise
from tests.models import healthy
from tests.models.breaks import BREAKS, Break, apply, use
from tests.models.healthy import find
from tests.models.scene import DAY, HOUR, MINUTE, Scene, frozen_scene
from worker.embedded.postgres import Postgres

DOCUMENT = Path(__file__).parents[2] / "docs" / "invariants.md"
SECOND = timedelta(seconds=1)
STRICT = Tolerance(in_flight=SECOND, settle=SECOND, event=SECOND, rotation=SECOND, message=SECOND)


@dataclass(frozen=True)
class Template:
    """A database in which all is well, the scene that made it so, and the moment at its end."""

    name: str
    scene: Scene
    at: datetime


@pytest.fixture(scope="module")
def template(postgres: Postgres, migrated_template: str) -> Template:
    name = "healthy"
    _copy(postgres, migrated_template, name)
    with frozen_scene(postgres.url(name)) as scene:
        healthy.build(scene)
        return Template(name, scene, scene.now())


@pytest.fixture
def scene(postgres: Postgres, template: Template) -> Iterator[Scene]:
    name = "broken"
    _copy(postgres, template.name, name)
    with healthy.reopened(template.scene, template.at, postgres.url(name)) as copied:
        yield copied


def _copy(postgres: Postgres, source: str, name: str) -> None:
    given = {"name": sql.Identifier(name), "source": sql.Identifier(source)}
    with postgres.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {name} WITH (FORCE)").format(**given))
        connection.execute(sql.SQL("CREATE DATABASE {name} TEMPLATE {source}").format(**given))


def broken(
    scene: Scene, *, full: bool = True, tolerance: Tolerance | None = None
) -> dict[str, int]:
    """The promises that are broken, and by how many rows."""
    found = check(scene.database, scene.policy, full=full, tolerance=tolerance)
    return {one.name: one.count for one in found}


def test_a_healthy_world_has_everything_and_breaks_nothing(scene: Scene) -> None:
    def seen(table: str, column: str) -> set[object]:
        return {row[column] for row in scene.sql(f"SELECT {column} FROM keyturn.{table}")}

    assert seen("api_keys", "status") == {"active", "disabled", "expired", "retired", "deleted"}
    assert seen("rotations", "state") == {"issued", "draining", "retired", "completed", "cancelled"}
    assert seen("rotations", "blocked_reason") == {None, "old_key_in_use"}
    assert seen("outbox", "state") == {"sent"}
    assert seen("notices", "state") == {"sent"}
    assert broken(scene) == {}
    assert broken(scene, full=False) == {}
    assert broken(scene, tolerance=STRICT) == {}


@pytest.mark.parametrize(
    ("name", "given"),
    [
        pytest.param(name, given, id=f"{name}: {how}")
        for name, ways in BREAKS.items()
        for how, given in ways.items()
    ],
)
def test_a_broken_promise_is_the_one_reported(scene: Scene, name: str, given: Break) -> None:
    assert broken(scene) == {}
    apply(scene, given)
    assert broken(scene) == {name: 1}
    assert broken(scene, full=False) == {name: 1}


def test_every_promise_was_broken() -> None:
    assert sorted(BREAKS) == sorted(promise.name for promise in PROMISES)


def test_every_promise_is_described() -> None:
    rows = re.findall(r"^\| `(\w+)` \|", DOCUMENT.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(promise.name for promise in PROMISES)


def test_a_status_that_nobody_wrote_down_breaks_two(scene: Scene) -> None:
    apply(scene, "UPDATE keyturn.api_keys SET status = 'active' WHERE name = 'disabled'")
    assert broken(scene) == {"status_is_true": 1, "audit_is_dense": 1}


def test_the_first_rows_are_named_and_all_are_counted(scene: Scene) -> None:
    apply(scene, "UPDATE keyturn.api_keys SET version = version + 1 WHERE name = 'unused'")
    [one] = check(scene.database, scene.policy, full=True)
    assert one.rows == (str(find(scene, "unused")),)
    assert one.sentence == next(p.sentence for p in PROMISES if p.name == "audit_is_dense")
    apply(scene, "UPDATE keyturn.api_keys SET version = version + 1")
    [every] = check(scene.database, scene.policy, full=True)
    assert every.count > len(set(every.rows)) == invariants.SHOWN


@pytest.mark.parametrize(
    "given",
    [
        use("expired", "expires_at + interval '60 s'"),
        use("held", "created_at + interval '60 s'"),
        "UPDATE keyturn.outbox SET state = 'waiting', due_at = :now - interval '300 s'"
        " WHERE channel = 'events'",
        "UPDATE keyturn.inbox SET state = 'received', next_attempt_at = :now - interval '300 s'"
        " WHERE event_id = '4'",
        "UPDATE keyturn.rotations SET retire_at = :now - interval '300 s' WHERE state = 'draining'",
    ],
    ids=["use after its end", "use after its hold", "message", "event", "rotation"],
)
def test_what_is_on_its_way_is_tolerated(scene: Scene, given: str) -> None:
    apply(scene, given)
    assert broken(scene) == {}
    assert len(broken(scene, tolerance=STRICT)) == 1


def test_a_use_after_the_hold_was_lifted_is_right(scene: Scene) -> None:
    apply(scene, use("freed", "created_at + interval '2 min'"))
    assert broken(scene, tolerance=STRICT) == {}


def test_a_cascade_has_a_minute(scene: Scene) -> None:
    account = scene.find_key(find(scene, "restored")).account_id
    with scene.database.begin() as tx:
        holds.lock_accounts(tx, [account])
        cause = holds.Cause(source="operator", kind="disabled", actor="op")
        holds.place(tx, holds.on_account(account), cause, scene.policy)
    scene.later(MINUTE)
    assert broken(scene) == {}
    scene.later(SECOND)
    assert broken(scene) == {"status_is_true": 1}
    healthy.run(scene)
    assert broken(scene) == {}


def test_a_due_notice_has_two_hours(scene: Scene) -> None:
    scene.clock.move_to(scene.find_key(find(scene, "warned")).expires_at - DAY)
    scene.later(2 * HOUR)
    assert "notices_complete" not in broken(scene)
    scene.later(SECOND)
    assert broken(scene)["notices_complete"] == 1
    healthy.run(scene)
    assert "notices_complete" not in broken(scene)


@pytest.mark.parametrize(
    ("policy", "missing"),
    [
        (Policy(notice_thresholds=(DAY,)), {"expired"}),
        (Policy(notice_thresholds=(7 * DAY, DAY)), {"expired", "warned"}),
        (Policy(notice_thresholds=()), {"expired"}),
        (Policy(notice_thresholds=(), notice_last_share_min_life=13 * DAY), set()),
    ],
)
def test_which_notices_are_due_is_by_the_policy(
    scene: Scene, policy: Policy, missing: set[str]
) -> None:
    """With notices of nothing at all, those that a policy wants are missing."""
    scene.policy = policy
    apply(scene, "DELETE FROM keyturn.notices")
    found = check(scene.database, policy, full=True)
    rows = {row for one in found for row in one.rows}
    assert rows == {str(find(scene, name)) for name in missing}


def test_where_flows_rest_long_more_is_tolerated() -> None:
    hour = Tolerance.of({"notices.plan": 6 * HOUR, "rotations.advance": SECOND})
    assert hour == replace(Tolerance(), notice=12 * HOUR)


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that takes no sample and goes back by nearly nothing, as on a huge installation."""
    monkeypatch.setattr(invariants, "WINDOW", 2)
    monkeypatch.setattr(invariants, "SAMPLE_PAGES", 0)
    monkeypatch.setattr(invariants, "REACHED", 2)


@pytest.mark.usefixtures("narrow")
def test_what_has_not_changed_is_left_to_the_sample_and_the_full_check(scene: Scene) -> None:
    apply(scene, "UPDATE keyturn.api_keys SET version = version + 1 WHERE name = 'unused'")
    assert broken(scene, full=False) == {}
    assert broken(scene) == {"audit_is_dense": 1}


@pytest.mark.usefixtures("narrow")
def test_what_has_changed_is_looked_at_at_once(scene: Scene) -> None:
    scene.delete(find(scene, "unused"))
    apply(scene, "UPDATE keyturn.api_keys SET version = version + 1 WHERE name = 'unused'")
    assert broken(scene, full=False) == {"audit_is_dense": 1}


@pytest.mark.usefixtures("narrow")
def test_what_time_has_reached_is_looked_at_at_once(scene: Scene) -> None:
    scene.clock.move_to(scene.find_key(find(scene, "warned")).expires_at + 2 * MINUTE)
    assert "status_is_true" in broken(scene, full=False)
    assert "rotations_advance" in broken(scene, full=False)


def test_the_check_is_one_snapshot_that_cannot_write(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = "SELECT current_setting('transaction_{}') AS id"
    promises = [Promise(name, "", asked.format(name)) for name in ("isolation", "read_only")]
    monkeypatch.setattr(invariants, "PROMISES", promises)
    found = check(scene.database, scene.policy)
    assert [one.rows for one in found] == [("repeatable read",), ("on",)]


def test_a_query_that_takes_too_long_is_an_error(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invariants, "TIMEOUT", timedelta(milliseconds=50))
    monkeypatch.setattr(invariants, "PROMISES", [Promise("slow", "", "SELECT pg_sleep(30) AS id")])
    with pytest.raises(DBAPIError, match="statement timeout"):
        check(scene.database, scene.policy)
