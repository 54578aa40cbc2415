"""`accounts import`, `keys import` and `accounts reconcile`, as they are typed."""

import base64
import hashlib
import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from models.key_text import mint
from models.operator import Operator
from tests.flows.stack import ROOT
from tests.worker.cli.conftest import ADA, Cli

BOB, EVE = "bob@example.com", "eve@example.com"
END = (datetime.now(UTC) + timedelta(days=30)).isoformat()
TEXT = "sk-legacy-7f3a9b1c2d4e5f60"
CANARY = "sk-canary-must-never-be-shown-1234567890"

ACCOUNTS = f"""\
email,name,role,created_at,okta,iss_sub:https://login.example.com/
{BOB},Bob,member,2021-05-01T00:00:00Z,00u1,sub-1
{EVE.upper()},"Eve, the first",member,,00u2,
"""


@pytest.fixture
def cli(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """With a source `okta` in the settings."""
    (tmp_path / "keyturn.toml").write_text('[sources.okta]\nprovider = "okta"\nstream = "okta"\n')
    monkeypatch.chdir(tmp_path)
    return cli


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def codes(cli: Cli, *args: str, stdin: str | bytes = "") -> list[tuple[int, str]]:
    """The lines that a command tells of; it ends with exit code 3."""
    result = cli(*args, "--json", stdin=stdin)
    assert result.exit_code == 3, result.output
    return [(one["line"], one["code"]) for one in json.loads(result.stdout)["lines"]]


def test_accounts_come_from_csv(cli: Cli) -> None:
    Path("users.csv").write_text(ACCOUNTS)
    would = cli.json("accounts", "import", "users.csv", "--dry-run")
    assert (would["dry_run"], would["created"]) == (True, 2)
    assert cli.json("accounts", "import", "users.csv")["created"] == 2
    again = cli.json("accounts", "import", "users.csv", "--update")
    assert (again["created"], again["unchanged"]) == (0, 2)
    shown = cli.json("accounts", "show", BOB)
    assert (shown["name"], shown["created_at"]) == ("Bob", "2021-05-01T00:00:00Z")
    assert {(one["format"], one["issuer"], one["value"]) for one in shown["identities"]} == {
        ("email", "", BOB),
        ("opaque", "okta", "00u1"),
        ("iss_sub", "https://login.example.com", "sub-1"),
    }
    assert cli.json("accounts", "show", EVE)["name"] == "Eve, the first"


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_accounts_come_from_json(cli: Cli, kind: str) -> None:
    rows = [
        {"email": BOB, "role": "member", "okta": 17, "name": None},
        {
            "email": EVE,
            "role": "member",
            "identities": [{"format": "phone_number", "value": "+44 20 7946 0000"}],
        },
    ]
    whole = json.dumps(rows) if kind == "json" else "\n".join(map(json.dumps, rows))
    assert cli.json("accounts", "import", "-", "--format", kind, stdin=whole)["created"] == 2
    numbers = {one["value"] for one in cli.json("accounts", "show", EVE)["identities"]}
    assert numbers == {EVE, "+442079460000"}
    assert "17" in {one["value"] for one in cli.json("accounts", "show", BOB)["identities"]}


def test_accounts_come_from_the_products_database(
    cli: Cli, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    query = f"SELECT '{BOB}' AS email, 'member' AS role, 5 AS okta, now() AS created_at"
    monkeypatch.setenv("PRODUCT", empty_database_url)
    command = ("accounts", "import", "--sql", query, "--from")
    assert cli.json(*command, "env:PRODUCT")["created"] == 1
    place = tmp_path / "url"
    place.write_text(empty_database_url)
    place.chmod(0o644)
    result = cli(*command, str(place))
    assert (result.exit_code, "chmod 600" in result.output) == (1, True)
    place.chmod(0o600)
    assert cli.json(*command, str(place))["unchanged"] == 1
    result = cli(*command, "postgresql://u:hunter2@h/d")
    assert result.exit_code == 1
    assert "hunter2" not in result.output
    monkeypatch.setenv("PRODUCT", "postgresql://u:hunter2@127.0.0.1:1/d")
    result = cli(*command, "env:PRODUCT")
    assert result.exit_code == 3
    assert "hunter2" not in result.output


@pytest.mark.parametrize("query", ["SELEC 1", "CREATE TABLE x ()", "SELECT 1 AS email, 2 AS email"])
def test_a_query_that_cannot_be_is_refused(
    cli: Cli, empty_database_url: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setenv("PRODUCT", empty_database_url)
    command = ("accounts", "import", "--from", "env:PRODUCT", "--sql", query)
    assert cli.refusal(*command) in ("query_failed", "column_repeated")


def test_the_query_cannot_write(
    cli: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRODUCT", database_url)
    query = "SELECT set_config('a.b', 'c', false) AS email, lo_create(0) AS name"
    command = ("accounts", "import", "--from", "env:PRODUCT", "--sql", query)
    assert cli.refusal(*command) == "query_failed"


def test_lines_that_are_wrong_are_told_by_number_and_the_rest_goes_on(cli: Cli) -> None:
    file = (
        "email,role,okta,created_at\n"
        "no address,member,1,\n"
        f"{BOB},king,2,\n"
        f"{BOB},member,3,yesterday\n"
        f"{BOB},member,3,2024-01-01\n"
        "too,few\n"
        f"{BOB},member,4,\n"
        f"{EVE},member,4,\n"
        f"{EVE},,5,\n"
    )
    assert codes(cli, "accounts", "import", "-", "--format", "csv", stdin=file) == [
        (2, "email_invalid"),
        (3, "role_unknown"),
        (4, "time_invalid"),
        (5, "time_invalid"),
        (6, "columns_differ"),
        (8, "identity_taken"),
        (9, "role_missing"),
    ]
    assert cli.json("accounts", "show", BOB)["role"] == "member"
    command = ("accounts", "import", "-", "--format", "csv", "--role", "member")
    assert (9, "role_missing") not in codes(cli, *command, stdin=file)
    assert cli.json("accounts", "show", EVE)["role"] == "member"


def test_a_dry_run_of_many_lines_counts_what_the_import_does(cli: Cli) -> None:
    """More than one batch: what one of them would make is there for the next."""
    file = "email,role,okta\n" + "".join(
        f"a{n % 520}@example.com,member,u{n % 519}\n" for n in range(1100)
    )
    command = ("accounts", "import", "-", "--format", "csv", "--json")
    would = json.loads(cli(*command, "--dry-run", stdin=file).stdout)
    done = json.loads(cli(*command, stdin=file).stdout)
    counted = ("created", "unchanged", "differs", "refused")
    assert [would[one] for one in counted] == [done[one] for one in counted]
    assert done["created"] == 519


def test_people_see_a_table(cli: Cli) -> None:
    result = cli("accounts", "import", "-", "--format", "csv", stdin="email,role\nx,member\n")
    assert result.exit_code == 3
    assert "Created 0 accounts, updated 0;" in result.stdout
    assert "email_invalid" in result.stdout
    tried = cli("accounts", "import", "-", "--format", "csv", "--dry-run", stdin="email,role\n")
    assert "Would create 0 accounts, update 0;" in tried.stdout


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("name,role\n", "column_missing"),
        ("email,rolle\n", "column_unknown"),
        ("email,email\n", "column_repeated"),
        ("email,,role\n", "column_unnamed"),
        ("", "file_empty"),
        ("email,role\n".encode("utf-16"), "not_utf8"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(cli: Cli, file: str | bytes, code: str) -> None:
    assert cli.refusal("accounts", "import", "-", "--format", "csv", stdin=file) == code


@pytest.mark.parametrize(
    ("file", "mend"),
    [
        ("users.xlsx", "save it as CSV UTF-8"),
        ("users.txt", "--format"),
    ],
)
def test_a_name_that_tells_no_format(cli: Cli, file: str, mend: str) -> None:
    result = cli("accounts", "import", file)
    assert result.exit_code == 2
    assert mend in " ".join(result.stderr.replace("\u2502", " ").split())


def test_a_file_of_a_spreadsheet_is_read_and_one_in_another_encoding_is_told(cli: Cli) -> None:
    """Semicolons, a mark of its encoding, Windows' ends of lines, rows of separators alone."""
    file = f"\ufeffEmail;Name;Role\r\n{BOB};Böb;member\r\n;;\r\n\r\n{EVE};;member\r\n;;\r\n"
    command = ("accounts", "import", "-", "--format", "csv")
    latin = file.removeprefix("\ufeff").encode("latin-1")
    assert codes(cli, *command, "--dry-run", stdin=latin) == [(2, "not_utf8")]
    assert cli.json(*command, stdin=file)["created"] == 2
    assert cli.json("accounts", "show", BOB)["name"] == "Böb"


def test_data_where_the_names_of_columns_should_be(cli: Cli) -> None:
    result = cli("accounts", "import", "-", "--format", "csv", stdin=f"{BOB},member\n")
    assert result.exit_code == 3
    assert "the first line of CSV names the columns" in " ".join(result.output.split())


def test_an_empty_cell_is_said_to_be_one(cli: Cli) -> None:
    command = ("accounts", "import", "-", "--format", "csv")
    result = cli(*command, "--json", stdin="email,role\n,member\n")
    [line] = json.loads(result.stdout)["lines"]
    assert (line["code"], line["message"]) == (
        "column_missing",
        "the column email is missing or empty",
    )


def test_on_a_terminal_there_is_a_bar(cli: Cli) -> None:
    Path("users.csv").write_text(
        "email,role\n" + "".join(f"a{number}@example.com,member\n" for number in range(1200))
    )
    ours, theirs = pty.openpty()
    importing = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "accounts", "import", "users.csv"],
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # Linux says so where the other end is closed
        pass
    os.close(ours)
    out, _ = importing.communicate(timeout=30)
    assert b"Created 1,200 accounts" in out
    assert "━" in shown.decode()
    assert "1,200 lines" in shown.decode()


@pytest.mark.parametrize("dry_run", [False, True])
def test_what_is_interrupted_says_what_is_done(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, dry_run: bool
) -> None:
    """Ctrl-C in the second batch; the same command again does the rest."""
    file = "email,role\n" + "".join(f"a{n}@example.com,member\n" for n in range(700))
    whole, batches = Operator.import_accounts, []

    def interrupted(*args: Any, **named: Any) -> Any:
        batches.append(args)
        if len(batches) == 2:
            raise KeyboardInterrupt
        return whole(*args, **named)

    command = ("accounts", "import", "-", "--format", "csv")
    with monkeypatch.context() as patched:
        patched.setattr(Operator, "import_accounts", interrupted)
        result = cli(*command, *(["--dry-run"] if dry_run else []), stdin=file)
    said = "nothing was written" if dry_run else "all is done up to line 501."
    assert result.exit_code != 0
    assert said in " ".join(result.stderr.split())
    assert cli.json(*command, stdin=file)["unchanged"] == (0 if dry_run else 500)


def test_a_column_can_be_passed_over(cli: Cli) -> None:
    file = f"email,role,shoe size\n{BOB},member,45\n"
    command = ("accounts", "import", "-", "--format", "csv", "--ignore", "shoe size")
    assert cli.json(*command, stdin=file)["created"] == 1


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("-",),
        ("users.txt",),
        ("nosuch.csv",),
        (".", "--format", "csv"),
        ("x.csv", "--sql", "SELECT 1"),
        ("--sql", "SELECT 1"),
        ("--from", "env:X"),
    ],
)
def test_usage(cli: Cli, args: tuple[str, ...]) -> None:
    assert cli("accounts", "import", *args).exit_code in (1, 2)


def verdict(cli: Cli, text: str) -> bool:
    result = cli("keys", "verify", "--json", stdin=text)
    valid: bool = json.loads(result.stdout)["valid"]
    return valid


def test_keys_come_by_their_digests(cli: Cli) -> None:
    other = "another legacy-key".replace(" ", "-")
    encoded = base64.b64encode(hashlib.sha256(other.encode()).digest()).decode()
    Path("keys.csv").write_text(
        "sha256,email,role,name,expires_at,allowed_ips,hint\n"
        f"{sha(TEXT).upper()},{ADA},member,ci,{END},192.0.2.0/24 2001:db8::1,5f60\n"
        f"{encoded},{ADA},member,,{END},,\n"
    )
    assert not verdict(cli, TEXT)
    assert cli.json("keys", "import", "keys.csv", "--dry-run")["created"] == 2
    assert not verdict(cli, other)
    assert cli.json("keys", "import", "keys.csv")["created"] == 2
    assert cli.json("keys", "import", "keys.csv")["unchanged"] == 2
    assert verdict(cli, other)
    [key] = [one for one in cli.json("keys", "list") if one["name"] == "ci"]
    assert (key["hint"], key["allowed_ips"]) == ("5f60", ["192.0.2.0/24", "2001:db8::1"])


def test_keys_come_by_their_texts_from_a_file_that_nobody_else_reads(cli: Cli) -> None:
    ours = mint("kt").reveal()
    lines = [{"text": one, "email": ADA, "role": "member", "expires_at": END}
             for one in (TEXT, ours)]  # fmt: skip
    file = Path("keys.jsonl")
    file.write_text("\n".join(map(json.dumps, lines)))
    file.chmod(0o640)
    result = cli("keys", "import", "keys.jsonl", "--texts")
    assert (result.exit_code, "chmod 600" in result.output) == (1, True)
    file.chmod(0o600)
    assert cli.json("keys", "import", "keys.jsonl", "--texts")["created"] == 2
    assert verdict(cli, TEXT)
    assert verdict(cli, ours)
    assert {one["hint"] for one in cli.json("keys", "list")} == {TEXT[-4:], ours[-4:]}


def test_keys_belong_to_accounts_by_their_ids_at_a_source(cli: Cli) -> None:
    cli.ok("accounts", "link", ADA, "okta:00u9")
    file = f"sha256,okta,role\n{sha(TEXT)},00u9,member\n"
    command = ("keys", "import", "-", "--format", "csv", "--expires-in", "30d")
    assert cli.json(*command, stdin=file)["created"] == 1
    assert verdict(cli, TEXT)


def test_later_ends_are_cut_and_that_is_said(cli: Cli) -> None:
    file = f"sha256,email,role,expires_at\n{sha(TEXT)},{ADA},member,2099-01-01T00:00:00Z\n"
    result = cli("keys", "import", "-", "--format", "csv", stdin=file)
    assert result.exit_code == 0
    assert "Ends cut to 25 weeks" in result.stdout


def test_wrong_keys_are_told_by_number_and_never_repeated(cli: Cli) -> None:
    file = (
        "text,email,role,name,expires_at,allowed_ips\n"
        f"short,{ADA},member,a,{END},\n"
        f"kt_{'0' * 33},{ADA},member,a,{END},\n"
        f"{CANARY},{CANARY},member,a,{END},\n"
        f"{CANARY},{ADA},{CANARY},a,{END},\n"
        f"{CANARY},{ADA},member,kt_{'x' * 33},{END},\n"
        f"{CANARY},{ADA},member,a,{CANARY},\n"
        f"{CANARY},{ADA},member,a,{END},{CANARY}\n"
        f"{CANARY},nobody@example.com,member,a,{END},\n"
        f"{CANARY},{ADA},member,a,,\n"
        f'"{CANARY}"x,{ADA},member,a,{END},\n'
        f"{CANARY},{ADA},member,a,{END},,{CANARY}\n"
    )
    command = ("keys", "import", "-", "--format", "csv", "--texts")
    assert codes(cli, *command, stdin=file) == [
        (2, "text_invalid"),
        (3, "text_invalid"),
        (4, "email_invalid"),
        (5, "role_not_allowed"),
        (6, "name_secret"),
        (7, "time_invalid"),
        (8, "ip_list_invalid"),
        (9, "user_unknown"),
        (10, "end_missing"),
        (11, "csv_invalid"),
        (12, "columns_differ"),
    ]
    shown = cli(*command, stdin=file).output + cli(*command, "--json", stdin=file).output
    assert CANARY not in shown
    without_heading = cli(*command, stdin=f"{CANARY},{ADA}\n")
    assert without_heading.exit_code == 3
    assert CANARY not in without_heading.output


def test_the_other_form_of_a_key_is_told_how_to_be_read(cli: Cli) -> None:
    command = ("keys", "import", "-", "--format", "csv")
    told = cli(*command, stdin="text,email\nlegacy-key-0001-abcdefgh,ada@example.com\n")
    assert (told.exit_code, "is read with --texts" in told.stderr) == (3, True)
    assert "legacy" not in told.output
    told = cli(*command, "--texts", stdin="sha256,email\n")
    assert (told.exit_code, "is read without --texts" in told.stderr) == (3, True)


@pytest.mark.parametrize("digest", ["", "abc", "g" * 64, sha(""), "A" * 44, "0" * 63])
def test_a_digest_that_is_none_is_refused(cli: Cli, digest: str) -> None:
    file = f"sha256,email,role,expires_at\n{digest},{ADA},member,{END}\n"
    [(line, code)] = codes(cli, "keys", "import", "-", "--format", "csv", stdin=file)
    assert line == 2
    assert code in ("digest_invalid", "column_missing")


@pytest.mark.parametrize("life", ["30s", "26w", "x", "-1d"])
def test_a_life_that_no_key_has_is_wrong_usage(cli: Cli, life: str) -> None:
    result = cli("keys", "import", "-", "--format", "csv", "--expires-in", life)
    assert result.exit_code == 2


def exported(states: dict[str, str], name: str = "export.csv") -> str:
    Path(name).write_text(
        "id,status\n" + "".join(f"{one},{state}\n" for one, state in states.items())
    )
    os.utime(name)
    return name


def reconciled(cli: Cli) -> tuple[str, ...]:
    cli.ok("accounts", "import", "-", "--format", "csv", stdin=ACCOUNTS)
    return "accounts", "reconcile", "--source", "okta", "--file"


def test_an_export_is_compared_shown_and_applied(cli: Cli) -> None:
    command = reconciled(cli)
    file = exported({"00u1": "SUSPENDED", "00u2": "ACTIVE"})
    would = cli.json(*command, file, "--dry-run")["would"]
    assert [one["email"] for one in would["to_hold"]] == [BOB]
    assert cli.json("accounts", "show", BOB)["holds"] == []
    assert cli(*command, file).exit_code == 2  # nobody can be asked
    assert cli.json(*command, file, "--yes")["applied"] == {"done": 1}
    [hold] = cli.json("accounts", "show", BOB)["holds"]
    assert (hold["source"], hold["kind"]) == ("okta", "disabled")
    assert "Nothing differs" in cli.ok(*command, file, "--yes")
    file = exported({"00u1": "ACTIVE", "00u2": "ACTIVE"})
    assert cli.json(*command, file, "--yes")["applied"] == {"done": 1}
    assert cli.json("accounts", "show", BOB)["holds"] == []


def test_lines_that_name_nobody_are_told_by_their_numbers(cli: Cli) -> None:
    command = reconciled(cli)
    states = {"00u1": "ACTIVE", "00u2": "ACTIVE", "elsewhere": "ACTIVE"}
    assert "name no account here: 1 (line 4)." in cli.ok(*command, exported(states))
    states |= {f"elsewhere-{n}": "ACTIVE" for n in range(20)}
    told = cli.ok(*command, exported(states))
    assert "name no account here: 21 (line 4, 5, 6," in told
    assert told.rstrip().endswith(", 23, ...).\nNothing differs.")


def test_an_export_from_before_the_last_event_changes_nothing(cli: Cli) -> None:
    command = reconciled(cli)
    cli.ok(*command, exported({"00u1": "DISABLED", "00u2": "ACTIVE"}), "--yes")
    before = (datetime.now(UTC) - timedelta(hours=1)).isoformat()
    file = exported({"00u1": "ACTIVE", "00u2": "ACTIVE"})
    assert cli.json(*command, file, "--at", before, "--yes")["left_alone"] == {"newer": 1}
    os.utime(file, (0, 0))  # without --at, a file is as old as it says
    assert cli.json(*command, file, "--yes")["left_alone"] == {"newer": 1}


def test_many_cuts_need_their_number(cli: Cli) -> None:
    users = "email,role,okta\n" + "".join(f"u{n}@example.com,member,{n}\n" for n in range(30))
    cli.ok("accounts", "import", "-", "--format", "csv", stdin=users)
    command = ("accounts", "reconcile", "--source", "okta", "--file")
    file = exported({str(n): "ACTIVE" for n in range(10)})
    assert cli.refusal(*command, file, "--yes") == "too_many_cuts"
    assert cli.json("accounts", "list", "--held") == []
    assert cli.json(*command, file, "--yes", "--cut", "20")["applied"] == {"done": 20}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("id,status\n", "export_foreign"),
        ("id,status\nnobody,ACTIVE\n", "export_foreign"),
        ("id,status\n00u1,PERHAPS\n", "state_unknown"),
        ("id,status\n00u1\n", "columns_differ"),
        ("id\n00u1\n", "column_missing"),
        ("status\nACTIVE\n", "column_missing"),
        ("id,status\n00u1,ACTIVE\n00u1,DISABLED\n", "account_repeated"),
        ('[{"id": "00u1", "active": true},', "json_invalid"),
    ],
)
def test_an_export_that_is_not_whole_changes_nothing(cli: Cli, text: str, code: str) -> None:
    command = reconciled(cli)
    kind = "json" if text.startswith("[") else "csv"
    assert cli.refusal(*command, "-", "--format", kind, "--yes", stdin=text) == code


@pytest.mark.parametrize("at", ["2026-02-30", "2026-01-01", "2999-01-01T00:00:00Z", "now"])
def test_a_time_that_no_export_has_is_wrong_usage(cli: Cli, at: str) -> None:
    command = reconciled(cli)
    assert cli(*command, exported({"00u1": "ACTIVE"}), "--at", at).exit_code == 2
