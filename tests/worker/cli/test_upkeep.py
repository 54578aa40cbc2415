"""`keyturn run`, `status`, `migrate`, `roles`, `notices`: keeping an installation."""

import json
import socket
from datetime import timedelta

import pytest

from models import record_tables, tables
from models.base import Database
from tests.worker.cli.conftest import ADA, Cli
from worker.cli import events, keys, notices, rotations
from worker.settings import load_settings


def let_end(database_url: str, key_id: str) -> None:
    """Move a key's life into the past."""
    database = Database(database_url)
    with database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = created_at - :back,"
            " expires_at = expires_at - :back WHERE id = CAST(:id AS uuid)",
            back=timedelta(days=31),
            id=key_id,
        )
    database.close()


def test_metrics_are_printed_for_a_collector_of_files(cli: Cli) -> None:
    told = cli.ok("metrics")
    assert "\nkeyturn_accounts_unsettled 0.0\n" in told
    assert cli.json("metrics")["unsettled_accounts"] == 0


@pytest.mark.parametrize("listen", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:http", "h:70000"])
def test_metrics_want_a_host_and_a_port(cli: Cli, listen: str) -> None:
    assert cli("metrics", "--listen", listen).exit_code == 2


def test_a_port_that_is_taken_is_named(cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = cli("metrics", "--listen", address)
    assert result.exit_code == 1
    assert f"cannot listen on {address}" in result.stderr


def test_a_job_runs_here_and_now(cli: Cli, database_url: str) -> None:
    over, alive = cli.new_key("over"), cli.new_key("alive")
    let_end(database_url, over["id"])
    assert json.loads(cli.ok("status", "--json"))["keys_past_end"] == 1
    assert cli.ok("keys", "list", "--status", "expired") == "No keys.\n"
    assert cli.json("run", "keys.expire_due") == {"job": "keys.expire_due", "changed": 1}
    assert [one["id"] for one in cli.json("keys", "list", "--status", "expired")] == [over["id"]]
    assert cli.json("keys", "show", alive["id"])["status"] == "active"
    assert "keys.expire_due: 0 changed" in cli.ok("run", "keys.expire_due")
    assert cli.json("status")["keys_past_end"] == 0
    told = cli.ok("status")
    assert "keys.expire_due" in told
    assert "ended" in cli.ok("keys", "list", "--status", "expired")
    assert cli.refusal("keys", "rotate", over["id"]) == "key_expired"


def test_notices_are_listed(cli: Cli, database_url: str) -> None:
    key = cli.new_key("ci")
    let_end(database_url, key["id"])
    cli.ok("run", "keys.expire_due")
    cli.ok("run", "notices.plan")
    found = cli.json("notices", "list", "--account", ADA)
    assert {one["key_id"] for one in found} == {key["id"]}
    told = cli.ok("notices", "list")
    assert "at its end" in told
    assert ADA in told
    assert cli.json("notices", "list", "--state", "failed") == []


def test_migrating_prepares_an_empty_database(
    bare_cli: Cli, monkeypatch: pytest.MonkeyPatch, empty_database_url: str
) -> None:
    monkeypatch.setenv("KEYTURN_DATABASE_URL", empty_database_url)
    told = bare_cli("accounts", "create", ADA, "--role", "member")
    assert told.exit_code == 4
    assert "keyturn migrate" in told.stderr
    first = bare_cli.json("migrate")
    assert bare_cli.json("migrate") == first
    assert [role["name"] for role in bare_cli.json("roles", "list")] == sorted(
        load_settings().roles
    )
    assert "read, write" in bare_cli.ok("roles", "list")


@pytest.mark.parametrize(
    ("offered", "states"),
    [
        (keys.Status, tables.KEY_STATUS),
        (rotations.State, tables.ROTATION_STATES),
        (events.State, record_tables.EVENT_STATES),
        (notices.State, record_tables.NOTICE_STATES),
    ],
)
def test_every_state_can_be_asked_for(offered: object, states: tuple[str, ...]) -> None:
    assert getattr(offered, "__args__", None) == states
