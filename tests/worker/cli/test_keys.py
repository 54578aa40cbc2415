"""`keyturn keys`: from creation to the end of a key."""

import json
import logging
import re
from datetime import UTC, datetime, timedelta

import pytest

from models import Client
from models.key_text import mint
from tests.worker.cli.conftest import ADA, Cli
from worker.settings import load_settings


def use(text: str) -> None:
    """Use a key as a product does, recorded at once."""
    settings = load_settings()
    with Client(settings.database_url, secrets_dir=settings.secrets_dir) as client:
        assert client.verify(text)
        client.flush_uses()


def test_a_created_key_is_shown_once_and_works(cli: Cli, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = cli(
        *("keys", "create", "first", "--user", ADA, "--role", "viewer"),
        *("--validity", "30", "--time-unit", "day"),
    )
    assert told.exit_code == 0
    [text] = re.findall(r"\bkt_[0-9A-Za-z]{33}\b", told.output)
    assert text not in told.stderr + caplog.text
    assert cli.ok("keys", "verify", stdin=text).startswith("yes\n")
    [listed] = cli.json("keys", "list")
    assert (listed["name"], listed["account"], listed["role"]) == ("first", ADA, "viewer")
    assert listed["id"] in told.stdout
    assert listed["created_by"].startswith("operator:")
    for command in (["list"], ["show", listed["id"]], ["list", "--json"]):
        assert text not in cli.ok("keys", *command)


def test_a_created_key_as_json(cli: Cli) -> None:
    key = cli.new_key("first", "--allow-ip", "192.0.2.0/24", "--allow-ip", "2001:db8::1")
    assert set(key) == {"id", "text", "expires_at"}
    ends = datetime.fromisoformat(key["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < ends <= timedelta(days=30, minutes=1)
    shown = cli.json("keys", "show", key["id"])
    assert shown["allowed_ips"] == ["192.0.2.0/24", "2001:db8::1"]


def test_verify_says_no_and_why(cli: Cli) -> None:
    key = cli.new_key("first", "--allow-ip", "192.0.2.0/24")
    assert cli("keys", "verify", "--ip", "192.0.2.7", stdin=key["text"] + "\n").exit_code == 0
    elsewhere = cli("keys", "verify", stdin=key["text"])
    assert elsewhere.exit_code == 3
    assert elsewhere.stdout.startswith("no: ")
    assert "ip_not_allowed" in elsewhere.stdout
    cli.ok("accounts", "disable", ADA, "--yes")
    refused = cli("keys", "verify", "--json", stdin=key["text"])
    assert refused.exit_code == 3
    verdict = json.loads(refused.stdout)
    assert (verdict["valid"], verdict["reason"]) == (False, "account_held")
    assert verdict["account"] == ADA
    mistyped = json.loads(cli("keys", "verify", "--json", stdin=key["text"][:-1] + "-").stdout)
    assert (mistyped["reason"], mistyped["key_id"]) == ("malformed", None)


def test_verify_is_no_use_of_the_key(cli: Cli) -> None:
    key = cli.new_key()
    cli.ok("keys", "verify", stdin=key["text"])
    assert cli.json("keys", "show", key["id"])["last_used_at"] is None
    use(key["text"])
    assert cli.json("keys", "show", key["id"])["last_used_at"] is not None


@pytest.mark.parametrize("command", [["verify"], ["claim"], ["rotate", "-"]])
def test_a_text_is_wanted_on_stdin(bare_cli: Cli, command: list[str]) -> None:
    told = bare_cli("keys", *command, stdin=" \n")
    assert (told.exit_code, told.stdout) == (2, "")
    assert "stdin" in told.stderr


@pytest.mark.parametrize("command", ["show", "disable", "enable", "delete", "rotate"])
def test_a_secret_as_an_argument_is_refused_and_not_repeated(bare_cli: Cli, command: str) -> None:
    text = mint("kt").reveal()
    for secret in (text, text[:-1]):
        told = bare_cli("keys", command, secret)
        assert told.exit_code == 2
        assert secret not in told.output
        assert "secret" in told.stderr


@pytest.mark.parametrize("command", ["verify", "claim"])
def test_there_is_no_way_to_give_a_text_as_an_argument(bare_cli: Cli, command: str) -> None:
    assert bare_cli("keys", command, "kt_x").exit_code == 2
    assert bare_cli("keys", command, "--text", "kt_x").exit_code == 2


def test_lists_by_state_account_and_end(cli: Cli) -> None:
    cli.ok("accounts", "create", "bob@example.com", "--role", "member")
    long, short, bobs = (
        cli.new_key("long"),
        cli.json(
            *("keys", "create", "short", "--user", ADA, "--role", "member"),
            *("--validity", "2", "--time-unit", "day"),
        ),
        cli.new_key("bobs", user="bob@example.com"),
    )
    cli.ok("keys", "disable", bobs["id"], "--yes")

    def names(*options: str) -> list[str]:
        return [key["name"] for key in cli.json("keys", "list", *options)]

    assert names() == ["bobs", "short", "long"]
    assert names("--account", ADA) == ["short", "long"]
    assert names("--status", "disabled") == ["bobs"]
    assert names("--expiring", "7d") == ["short"]
    assert names("--expiring", "7w", "--account", ADA) == ["short", "long"]
    assert names("--limit", "1") == ["bobs"]
    told = cli.ok("keys", "list")
    assert all(len(line) <= 80 for line in told.splitlines())
    for key in (long, short, bobs):
        assert key["id"] in told
    assert "\x1b" not in told
    assert cli.ok("keys", "list", "--status", "expired") == "No keys.\n"


def test_a_key_is_disabled_and_enabled_again(cli: Cli) -> None:
    key = cli.new_key()
    told = cli("keys", "disable", key["id"], "--reason", "spring cleaning", "--yes")
    assert told.exit_code == 0
    assert "never used" in told.stderr
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 3
    assert "operator/disabled" in cli.ok("keys", "show", key["id"])
    assert "spring cleaning" in cli.ok("keys", "show", key["id"])
    again = cli.json("keys", "disable", key["id"], "--yes")
    assert again == {"id": key["id"], "changed": False, "status": "disabled"}
    enabled = cli.json("keys", "enable", key["id"])
    assert (enabled["changed"], enabled["status"], enabled["holds"]) == (True, "active", [])
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0
    assert "was not disabled" in cli.ok("keys", "enable", key["id"])


def test_enabling_a_key_says_what_still_holds_it(cli: Cli) -> None:
    key = cli.new_key()
    cli.ok("keys", "disable", key["id"], "--yes")
    cli.ok("accounts", "disable", ADA, "--yes")
    told = cli.ok("keys", "enable", key["id"])
    assert "disabled" in told.splitlines()[0]
    assert f"{ADA} is held by operator/disabled" in told


def test_deleting_a_key_in_use_warns(cli: Cli) -> None:
    key = cli.new_key()
    use(key["text"])
    told = cli.ok("keys", "delete", key["id"], "--dry-run")
    assert f"nothing replaces it; `keyturn keys rotate {key['id']}` first" in told
    assert re.search(r"used \d+ seconds? ago", told)
    assert ADA in told
    would = cli.json("keys", "delete", key["id"], "--dry-run")
    assert would["dry_run"] is True
    assert would["would"]["id"] == key["id"]
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 0

    cli.ok("keys", "rotate", key["id"])
    successor = cli.json("keys", "claim", stdin=key["text"])
    told = cli.ok("keys", "delete", key["id"], "--dry-run")
    assert "nothing replaces it" not in told
    assert f"its successor {successor['id']} never" in told
    use(successor["text"])
    told = cli.ok("keys", "delete", key["id"], "--dry-run")
    assert f"its successor {successor['id']} is in use" in told


def test_a_deleted_key_is_gone_for_ever(cli: Cli) -> None:
    key = cli.new_key()
    assert cli.ok("keys", "delete", key["id"], "--yes") == f"{key['id']} is deleted.\n"
    assert "deleted" in cli("keys", "verify", stdin=key["text"]).stdout
    assert cli.json("keys", "delete", key["id"], "--yes")["changed"] is False
    cli("keys", "enable", key["id"])
    assert cli("keys", "verify", stdin=key["text"]).exit_code == 3


def test_rotation_from_request_to_claim(cli: Cli) -> None:
    old = cli.new_key()
    rotation = cli.json("keys", "rotate", old["id"], "--idempotency-key", "monday")
    assert rotation["state"] == "issued"
    again = cli.json("keys", "rotate", "-", "--idempotency-key", "monday", stdin=old["text"])
    assert (again["id"], again["new_key_id"]) == (rotation["id"], rotation["new_key_id"])
    told = cli.ok("keys", "claim", stdin=old["text"] + "\n")
    [new] = re.findall(r"\bkt_[0-9A-Za-z]{33}\b", told)
    assert new != old["text"]
    assert rotation["new_key_id"] in told
    for text in (old["text"], new):
        assert cli("keys", "verify", stdin=text).exit_code == 0
    assert cli.refusal("keys", "claim", stdin=old["text"]) == "already_claimed"
    assert rotation["new_key_id"] in cli.ok("keys", "show", old["id"])


def test_a_claim_without_a_rotation_is_refused(cli: Cli) -> None:
    assert cli.refusal("keys", "claim", stdin=cli.new_key()["text"]) == "no_rotation"
    assert cli.refusal("keys", "claim", stdin="kt_nonsense") == "key_unknown"


def test_an_interrupted_rotation_says_how_to_go_on(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cli.new_key()

    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "rotate", interrupted)
    told = cli("keys", "rotate", key["id"])
    assert (told.exit_code, told.stdout) == (130, "")
    assert "same command again" in told.stderr
