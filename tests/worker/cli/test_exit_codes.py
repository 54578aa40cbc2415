"""How a command ends: usage, servers that fail, schemas that differ, grants that lack, signals."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from models import migrations
from models.base import Database
from tests.eventually import eventually
from tests.servers import free_port
from tests.worker.cli.conftest import ADA, Cli
from worker.embedded.postgres import Postgres

KEYTURN = [sys.executable, "-m", "worker.cli"]
PROJECT = Path(__file__).parents[3]


def error(cli: Cli, *command: str) -> tuple[int, str, str]:
    """Exit code, code and message of a command that is not done."""
    result = cli("--json", *command)
    assert result.stderr == ""
    told = json.loads(result.stdout)["error"]
    return result.exit_code, told["code"], told["message"]


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["nosuch"],
        ["keys", "nosuch"],
        ["keys", "list", "--stat", "active"],
        ["keys", "list", "--status", "act"],
        ["keys", "list", "--expiring", "7x"],
        ["keys", "list", "--expiring", "P1Y"],
        ["keys", "list", "--expiring", "-1"],
        ["keys", "list", "--expiring", "1e9"],
        ["keys", "list", "--limit", "0"],
        ["keys", "create"],
        ["keys", "create", "first", "--secret", "kt_x"],
        ["keys", "show", "one", "two"],
        ["accounts", "create", "bob@example.com"],
        ["events", "show", "one"],
        ["events", "show", "-1"],
        ["events", "show", "9223372036854775808"],
        ["events", "list", "--state", "done,parked"],
    ],
)
def test_wrong_usage(bare_cli: Cli, command: list[str]) -> None:
    told = bare_cli(*command)
    assert (told.exit_code, told.stdout) == (2, "")
    assert "Usage: keyturn" in told.stderr


def test_the_form_of_a_duration_is_told(bare_cli: Cli) -> None:
    assert "from 0s to 520w" in bare_cli("keys", "list", "--expiring", "7x").stderr


def test_json_may_stand_anywhere(cli: Cli) -> None:
    for command in (
        ["--json", "keys", "list"],
        ["keys", "--json", "list"],
        ["keys", "list", "--json"],
    ):
        assert json.loads(cli.ok(*command)) == []


DESTRUCTIVE = (
    ["keys", "delete", "{key}"],
    ["keys", "disable", "{key}"],
    ["accounts", "disable", ADA],
)


def test_nothing_is_done_where_nobody_can_answer(cli: Cli) -> None:
    key = cli.new_key()
    for command in DESTRUCTIVE:
        given = [word.format(key=key["id"]) for word in command]
        for answers in ("", "y\n"):
            told = cli(*given, stdin=answers)
            assert (told.exit_code, told.stdout) == (2, "")
            assert "--yes" in told.stderr
        as_json = cli(*given, "--json")
        assert as_json.exit_code == 2
        assert json.loads(as_json.stdout)["error"]["code"] == "answer_needed"
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0


def test_a_person_is_asked(cli: Cli) -> None:
    key = cli.new_key()
    delete = [*KEYTURN, "keys", "delete", key["id"]]
    for answer, code in ((b"\n", 1), (b"y\n", 0)):
        asked, terminal = pty.openpty()
        os.write(asked, answer)
        done = subprocess.run(
            delete, stdin=terminal, capture_output=True, text=True, cwd=PROJECT, check=False
        )
        os.close(terminal)
        os.close(asked)
        assert done.returncode == code, done.stderr
        assert key["id"] in done.stderr
        assert "Delete it? [y/N]" in done.stderr
        alive = cli.json("keys", "show", key["id"])["status"] == "active"
        assert alive == (code == 1)


def test_no_database_is_said_in_a_line(
    bare_cli: Cli, monkeypatch: pytest.MonkeyPatch, secrets_dir: Path
) -> None:
    code, name, message = error(bare_cli, "keys", "list")
    assert (code, name) == (1, "misconfigured")
    assert "KEYTURN_DATABASE_URL" in message
    monkeypatch.setenv(
        "KEYTURN_DATABASE_URL", f"postgresql://keyturn:hidden@127.0.0.1:{free_port()}/keyturn"
    )
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(secrets_dir))
    code, name, message = error(bare_cli, "keys", "list")
    assert (code, name) == (1, "database_unavailable")
    assert "hidden" not in message
    told = bare_cli("keys", "list")
    assert (told.exit_code, told.stdout) == (1, "")
    assert len(told.stderr.splitlines()) == 1


def test_a_broker_that_is_down_stops_no_command(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cli.new_key()
    monkeypatch.setenv("KEYTURN_BROKER_URL", f"redis://127.0.0.1:{free_port()}/0")
    assert cli.json("accounts", "disable", ADA, "--yes")["changed"] is True
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 3
    code, name, _ = error(cli, "events", "send", "account.disabled", ADA)
    assert (code, name) == (1, "server_failed")


def test_a_wrong_setting_is_told(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYTURN_DATABSE_URL", "postgresql://localhost/keyturn")
    code, name, message = error(bare_cli, "status")
    assert (code, name) == (1, "misconfigured")
    assert "KEYTURN_DATABASE_URL" in message


def test_a_schema_of_another_version_is_left_alone(cli: Cli, database_url: str) -> None:
    database = Database(database_url)
    for revision, mend in (("0000", "keyturn migrate"), ("9999", "upgrade Keyturn")):
        with database.begin() as tx:
            tx.execute("UPDATE keyturn.alembic_version SET version_num = :to", to=revision)
        for command in (
            ["keys", "list"],
            ["accounts", "create", "bob@example.com", "--role", "member"],
            ["run", "keys.expire_due"],
        ):
            code, name, message = error(cli, *command)
            assert (code, name) == (4, "wrong_schema")
            assert mend in message
            assert revision in message
    assert error(cli, "migrate")[:2] == (4, "wrong_schema")
    with database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.accounts") == 1
        assert tx.scalar("SELECT version_num FROM keyturn.alembic_version") == "9999"
        tx.execute("UPDATE keyturn.alembic_version SET version_num = :to", to=migrations.head())
    database.close()
    assert cli.json("keys", "list") == []


def test_a_lacking_grant_is_named(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, postgres: Postgres, database_url: str
) -> None:
    name = database_url.partition("?")[0].rpartition("/")[2]
    with postgres.connect(name) as connection:
        connection.execute("CREATE ROLE reader LOGIN")
        connection.execute("GRANT USAGE ON SCHEMA keyturn TO reader")
        connection.execute("GRANT SELECT ON ALL TABLES IN SCHEMA keyturn TO reader")
    monkeypatch.setenv("KEYTURN_DATABASE_URL", database_url.replace("keyturn@", "reader@", 1))
    try:
        assert cli.json("keys", "list") == []
        code, error_code, message = error(
            cli, "accounts", "create", "bob@example.com", "--role", "member"
        )
        assert (code, error_code) == (5, "grant_missing")
        assert "accounts" in message
        assert "reader" in message
        with postgres.connect(name) as connection:
            connection.execute("REVOKE USAGE ON SCHEMA keyturn FROM reader")
        code, error_code, message = error(cli, "keys", "list")
        assert (code, error_code) == (5, "grant_missing")
    finally:
        with postgres.connect(name) as connection:
            connection.execute("DROP OWNED BY reader")
            connection.execute("DROP ROLE reader")


def test_an_argument_that_is_no_text_is_wrong_usage(cli: Cli) -> None:
    done = subprocess.run(
        [*map(os.fsencode, KEYTURN), b"accounts", b"show", b"\xff\xfe"],
        capture_output=True,
        cwd=PROJECT,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_reader_that_goes_away_is_no_fault(cli: Cli) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*KEYTURN, "roles", "list"],
        stdout=writing,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_ctrl_c_is_quiet(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch, secrets_dir: Path) -> None:
    """Interrupted while it waits for its input."""
    running = subprocess.Popen(
        [*KEYTURN, "events", "parse", "-", "--provider", "native"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=PROJECT,
    )
    waits = Path(f"/proc/{running.pid}/wchan")
    eventually(lambda: "pipe" in waits.read_text())
    running.send_signal(signal.SIGINT)
    out, told = running.communicate(timeout=30)
    assert (running.returncode, out, told) == (130, b"", b"")
