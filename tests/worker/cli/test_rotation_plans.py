"""`keyturn rotations plan`, `apply`, `watch` and the rest: many keys by one plan."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from models.operator import Operator
from tests.worker.cli.conftest import ADA, Cli
from worker.cli import plan_watch

ROOT = Path(__file__).parents[3]
BOB = "bob@example.com"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_BULK_RATE", "1000")
    monkeypatch.setenv("KEYTURN_WAVE_KEYS", "2")
    monkeypatch.setattr(plan_watch, "EVERY", 0.01)


@pytest.fixture
def client(cli: Cli, database_url: str, secrets_dir: Path) -> Iterator[Operator]:
    with Operator(database_url, secrets_dir=secrets_dir) as made:
        yield made


def planned(cli: Cli, *options: str) -> Any:
    return cli.json("rotations", "plan", *(options or ("--all",)))


def applied(cli: Cli, *options: str) -> Any:
    return cli.json("rotations", "apply", planned(cli, *options)["id"], "--yes")


def work(cli: Cli) -> int:
    """What the worker does until nothing is left."""
    total = 0
    while changed := cli.json("run", "operations.advance")["changed"]:
        total += changed
    return total


def test_why_a_plan_stopped_by_itself(cli: Cli, database_url: str) -> None:
    cli.new_key("ci")
    plan = applied(cli)
    assert "Workers rotate its keys" in cli.ok("why", plan["id"])
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "UPDATE keyturn.operation_keys SET attempts = 3, reason = 'OSError',"
            " next_attempt_at = now()"
        )
    work(cli)
    said = cli.json("why", plan["id"])
    assert (said["subject"], said["id"], said["works"]) == ("plan", plan["id"], False)
    told = " ".join(cli.ok("why", plan["id"]).split())
    assert "is stopped" in told
    assert "1 of 1 keys of wave 1 failed: OSError" in told
    assert f"`keyturn rotations resume {plan['id']}` tries again" in told
    assert "plans 1 stopped" in " ".join(cli.ok("status").split())
    assert cli.json("status")["operations"] == {"running": 0, "paused": 0, "stopped": 1}
    assert 'keyturn_operations{state="stopped"} 1.0' in cli.ok("metrics")


def test_a_dry_run_of_a_plans_end_is_refused_where_that_is(cli: Cli) -> None:
    cli.new_key("ci")
    plan = applied(cli)
    work(cli)
    for option in ("--dry-run", "--yes"):
        assert cli.refusal("rotations", "cancel", plan["id"], option) == "plan_ended"


def test_a_plan_shows_what_it_would_do_and_does_nothing(cli: Cli) -> None:
    cli.ok("accounts", "create", BOB, "--role", "member")
    keys = [cli.new_key("ci")["id"], cli.new_key("cd")["id"], cli.new_key("b", user=BOB)["id"]]
    held = cli.new_key("held")["id"]
    cli.ok("keys", "disable", held, "--yes")
    told = cli.ok("rotations", "plan", "--all")
    assert "3 of 2 owners, in 2 waves" in told
    assert "0 in the last 24 hours, 0 in the last 7 days" in told
    assert "3 by claim" in told
    assert "1 disabled" in told
    assert held in told
    assert "Nothing was rotated" in told
    plan = planned(cli, "--all")
    assert (plan["state"], plan["keys"], plan["left_out"]) == ("planned", 3, {"key_held": 1})
    assert [one["key_id"] for one in plan["unrotated"]] == [held]
    assert cli.json("rotations", "list") == []
    assert cli.json("rotations", "show", plan["id"]) == plan
    assert {one["id"] for one in cli.json("rotations", "plans")} > {plan["id"]}
    listed = cli.ok("rotations", "plans")
    assert plan["id"] in listed
    assert keys[0] not in listed


def test_a_plan_that_takes_no_key_says_why_and_offers_nothing(cli: Cli) -> None:
    made = cli.ok("rotations", "plan", "--all")
    assert "There is nothing to rotate: no key was chosen." in made
    assert "apply" not in made.splitlines()[-1]
    held = cli.new_key("held")["id"]
    cli.ok("keys", "disable", held, "--yes")
    told = cli.ok("rotations", "plan", "--all")
    assert "There is nothing to rotate: every key that the options choose is left out." in told
    plan = planned(cli, "--all")["id"]
    refused = cli("rotations", "apply", plan, "--yes").stderr
    assert f"`keyturn rotations show {plan}` says why each is left out" in refused


def test_options_narrow_each_other_down(cli: Cli) -> None:
    cli.new_key("ci")
    assert planned(cli, "--account", ADA, "--role", "member")["keys"] == 1
    assert planned(cli, "--expiring", "31d")["keys"] == 1
    plan = planned(cli, "--expiring", "31d", "--older-than", "90d", "--all")
    assert plan["keys"] == 0
    assert plan["selection"] == {
        "older_than": 90 * 86400.0,
        "expiring": 31 * 86400.0,
        "everything": True,
    }
    assert "--older-than 90d --expiring 31d --all" in cli.ok("rotations", "show", plan["id"])
    assert cli.refusal("rotations", "apply", plan["id"], "--yes") == "plan_empty"


def test_without_a_choice_the_choices_are_told(cli: Cli) -> None:
    result = cli("rotations", "plan")
    assert result.exit_code == 2
    for option in ("--account", "--role", "--older-than", "--expiring", "--all"):
        assert option in result.stderr
    assert cli("rotations", "plan", "--older-than", "soon").exit_code == 2
    assert cli.refusal("rotations", "plan", "--role", "king") == "role_unknown"
    assert cli.refusal("rotations", "plan", "--account", BOB) == "user_unknown"


def test_a_plan_is_applied_only_when_told_to(cli: Cli) -> None:
    cli.new_key("ci")
    plan = planned(cli)["id"]
    apply = ("rotations", "apply", plan)
    assert "Nothing was done." in cli.ok(*apply, "--dry-run")
    assert cli.json(*apply, "--dry-run")["would"]["plan"]["id"] == plan
    assert cli(*apply).exit_code == 2
    assert cli.json("rotations", "show", plan)["state"] == "planned"
    assert cli.json(*apply, "--yes")["state"] == "running"
    assert cli.json(*apply)["state"] == "running"  # there is nothing to ask about any more
    assert work(cli) >= 1
    assert cli.json(*apply)["state"] == "completed"
    [rotation] = cli.json("rotations", "list")
    assert (rotation["operation_id"], rotation["reason"]) == (plan, "operation")


def test_a_plan_that_grew_is_refused(cli: Cli) -> None:
    cli.new_key("ci")
    plan = planned(cli)["id"]
    cli.new_key("one more")
    result = cli("rotations", "apply", plan, "--yes")
    assert result.exit_code == 3
    assert "1 keys were added to its 1 (100.0%" in result.stderr
    assert cli.refusal("rotations", "apply", plan, "--yes", "--dry-run") == "plan_grew"


def test_pause_resume_and_cancel(cli: Cli) -> None:
    for name in ("ci", "cd", "ce"):
        cli.new_key(name)
    plan = applied(cli)["id"]
    assert cli.json("rotations", "pause", plan)["state"] == "paused"
    assert work(cli) == 0
    assert "0 of 3 keys" in cli.ok("rotations", "resume", plan)
    cli.ok("rotations", "pause", plan)
    assert cli("rotations", "cancel", plan).exit_code == 2
    assert "3 of its 3 keys are not rotated" in cli.ok("rotations", "cancel", plan, "--dry-run")
    cancelled = cli.json("rotations", "cancel", plan, "--yes", "--reason", "too early")
    assert (cancelled["state"], cancelled["stop_reason"]) == ("cancelled", "operator: too early")
    assert cli.refusal("rotations", "resume", plan) == "plan_not_running"
    assert cli.refusal("rotations", "pause", "nonsense") == "plan_unknown"
    assert cli.refusal("rotations", "show", "nonsense") == "rotation_unknown"
    assert work(cli) == 0


def test_watching_prints_each_change_until_the_end(
    cli: Cli, client: Operator, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ci", "cd", "ce"):
        cli.new_key(name)
    plan = applied(cli)["id"]
    looks: list[Any] = []

    def look() -> Any:
        if len(looks) in (2, 4):
            work(cli)
        if len(looks) == 1:
            client.operations.pause(plan)
        if len(looks) == 3:
            client.operations.resume(plan)
        looks.append(client.operations.find(plan))
        return looks[-1]

    last = plan_watch.follow(look, json=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1].strip(",") for line in lines] == [
        *("running", "paused", "running", "completed")
    ]
    assert "wave 1 of 2, 0 of 3 keys (0%)" in lines[0]
    assert "3 of 3 keys (100%)" in lines[-1]
    assert last.state == "completed"


def test_watching_for_programs_is_a_document_a_line(cli: Cli) -> None:
    cli.new_key("ci")
    plan = applied(cli)["id"]
    work(cli)
    lines = cli.ok("rotations", "watch", plan, "--json").splitlines()
    [document] = [json.loads(line) for line in lines]
    assert (document["id"], document["state"], document["issued"]) == (plan, "completed", 1)
    assert document["seconds_left"] == 0


def test_how_watching_ends(cli: Cli) -> None:
    cli.new_key("ci")
    plan = planned(cli)["id"]
    assert cli.refusal("rotations", "watch", plan) == "plan_not_applied"
    cli.ok("rotations", "cancel", plan, "--yes")
    result = cli("rotations", "watch", plan)
    assert (result.exit_code, "cancelled" in result.stdout) == (1, True)
    done = applied(cli)["id"]
    work(cli)
    assert cli("rotations", "watch", done).exit_code == 0


def test_on_a_terminal_there_is_a_bar(cli: Cli) -> None:
    cli.new_key("ci")
    plan = applied(cli)["id"]
    work(cli)
    ours, theirs = pty.openpty()
    watching = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "rotations", "watch", plan],
        cwd=ROOT,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
        stdout=theirs,
        stdin=subprocess.DEVNULL,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so where the other end is closed
        pass
    assert watching.wait(timeout=30) == 0
    os.close(ours)
    assert "━" in shown.decode()
    assert "completed, wave 1 of 1, 1 of 1 keys (100%)" in shown.decode()
