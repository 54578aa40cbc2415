"""Every refusal of the rules reaches the terminal: its code, its message, exit code 3."""

import json
from collections.abc import Mapping

from tests.worker.cli.conftest import ADA, Cli

GOOD = {
    "--user": ADA,
    "--role": "member",
    "--validity": "30",
    "--time-unit": "day",
}

CREATION: list[tuple[str, str, dict[str, str | None]]] = [
    ("name_empty", "", {}),
    ("ip_list_invalid", "first", {"--allow-ip": "10.0.0.1/8"}),
    ("ip_list_invalid", "first", {"--allow-ip": ""}),
    ("user_missing", "first", {"--user": None}),
    ("user_missing", "first", {"--user": ""}),
    ("role_missing", "first", {"--role": None}),
    ("unit_invalid", "first", {"--time-unit": "year"}),
    ("unit_invalid", "first", {"--time-unit": ""}),
    ("validity_not_positive", "first", {"--validity": "-1"}),
    ("validity_not_positive", "first", {"--validity": "1.5"}),
    ("validity_not_positive", "first", {"--validity": "soon"}),
    ("validity_not_positive", "first", {"--validity": "\u0661"}),
    ("validity_too_short", "first", {"--validity": "0"}),
    ("validity_too_short", "first", {"--validity": None, "--time-unit": None}),
    ("validity_too_short", "first", {"--validity": "59", "--time-unit": "second"}),
    ("validity_too_long", "first", {"--validity": "26", "--time-unit": "week"}),
    ("validity_too_long", "first", {"--validity": "9" * 30}),
    ("user_unknown", "first", {"--user": "nobody@example.com"}),
    ("user_unknown", "first", {"--user": "*"}),
    ("user_unknown", "first", {"--user": "%"}),
    ("role_not_allowed", "first", {"--role": "admin"}),
    ("role_not_allowed", "first", {"--role": "nosuch"}),
]


def creation(name: str, changes: Mapping[str, str | None]) -> list[str]:
    given = {**GOOD, **changes}
    options = [f"{option}={value}" for option, value in given.items() if value is not None]
    return ["keys", "create", name, *options]


def test_creations_that_the_rules_refuse(cli: Cli) -> None:
    """One database for all rows: a refusal leaves nothing behind."""
    codes = []
    for _, name, changes in CREATION:
        told = cli(*creation(name, changes))
        as_json = cli("--json", *creation(name, changes))
        error = json.loads(as_json.stdout)["error"]
        assert (as_json.exit_code, as_json.stderr) == (3, ""), changes
        assert (told.exit_code, told.stdout) == (3, ""), changes
        assert told.stderr == f"keyturn: {error['message']}\n"
        codes.append((error["code"], name, changes))
    assert codes == CREATION
    assert cli.json("keys", "list") == []


def test_a_held_account_gets_no_key(cli: Cli) -> None:
    cli.ok("accounts", "disable", ADA, "--yes")
    told = cli(*creation("first", {}))
    assert told.exit_code == 3
    assert "operator/disabled" in told.stderr
    assert cli.refusal(*creation("first", {})) == "account_held"


def test_the_first_thing_that_is_wrong_is_told(cli: Cli) -> None:
    wrong = {"--user": None, "--role": None, "--time-unit": "year", "--validity": "0"}
    assert cli.refusal(*creation("first", wrong)) == "user_missing"


def test_all_codes_of_a_creation_are_in_the_table() -> None:
    assert {code for code, _, _ in CREATION} | {"account_held"} == {
        "name_empty",
        "ip_list_invalid",
        "user_missing",
        "role_missing",
        "unit_invalid",
        "validity_not_positive",
        "validity_too_short",
        "validity_too_long",
        "user_unknown",
        "account_held",
        "role_not_allowed",
    }


NOBODY = "00000000-0000-7000-8000-000000000000"


NAMES: list[tuple[str, list[str]]] = [
    ("user_unknown", ["accounts", "show", "*"]),
    ("user_unknown", ["accounts", "show", "%"]),
    ("user_unknown", ["accounts", "show", ""]),
    ("user_unknown", ["accounts", "disable", "ada@example.co", "--yes"]),
    ("user_unknown", ["accounts", "enable", "a%"]),
    ("user_unknown", ["accounts", "link", "", "okta:00u1"]),
    ("user_unknown", ["keys", "list", "--account", ""]),
    ("user_unknown", ["keys", "list", "--account", "*"]),
    ("user_unknown", ["rotations", "list", "--account", ""]),
    ("user_unknown", ["notices", "list", "--account", "%"]),
    ("user_exists", ["accounts", "create", "ADA@example.com", "--role", "member"]),
    ("email_invalid", ["accounts", "create", "a,b@example.com", "--role", "member"]),
    ("role_unknown", ["accounts", "create", "bob@example.com", "--role", "nosuch"]),
    ("key_unknown", ["keys", "show", "first"]),
    ("key_unknown", ["keys", "show", NOBODY]),
    ("key_unknown", ["keys", "show", ""]),
    ("key_unknown", ["keys", "delete", "*", "--yes"]),
    ("key_unknown", ["keys", "disable", NOBODY, "--dry-run"]),
    ("key_unknown", ["keys", "enable", NOBODY]),
    ("key_unknown", ["keys", "rotate", NOBODY]),
    ("rotation_unknown", ["rotations", "show", NOBODY]),
    ("rotation_unknown", ["rotations", "confirm", NOBODY]),
    ("rotation_unknown", ["rotations", "cancel", "*", "--yes"]),
    ("rotation_unknown", ["rotations", "undo", NOBODY]),
    ("rotation_unknown", ["rotations", "retry", "nonsense"]),
    ("rotation_unknown", ["rotations", "reissue", NOBODY, "--yes"]),
    ("event_unknown", ["events", "show", "1"]),
    ("event_unknown", ["events", "replay", "9223372036854775807"]),
    ("job_unknown", ["run", "keys.expire"]),
]


def test_names_are_exact(cli: Cli) -> None:
    assert [(cli.refusal(*command), command) for _, command in NAMES] == NAMES
    assert cli.json("accounts", "show", ADA)["held"] is False


def test_a_stopped_key_is_not_rotated(cli: Cli) -> None:
    disabled, deleted, held = (cli.new_key(name)["id"] for name in ("one", "two", "three"))
    cli.ok("keys", "disable", disabled, "--yes")
    assert cli.refusal("keys", "rotate", disabled) == "key_held"
    cli.ok("keys", "delete", deleted, "--yes")
    assert cli.refusal("keys", "rotate", deleted) == "key_deleted"
    cli.ok("accounts", "disable", ADA, "--yes")
    assert cli.refusal("keys", "rotate", held) == "account_held"
    assert cli.json("rotations", "list") == []


def test_an_unknown_job_is_told_with_the_known_ones(cli: Cli) -> None:
    told = cli("run", "nosuch").stderr
    assert "keys.expire_due" in told
    assert "outbox.deliver" in told
