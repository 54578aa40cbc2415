"""Clumsy and hostile command lines: exit codes, clear words, nothing done, no secret repeated."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bad_input.processes import KEYTURN, PROJECT, Done, keyturn
from tests.servers import free_port
from tests.worker.cli.conftest import ADA, Cli

NOBODY = "00000000-0000-7000-8000-000000000000"

USAGE: dict[str, list[str]] = {
    "abbreviated option": ["keys", "list", "--acc", ADA],
    "abbreviated command": ["key", "list"],
    "abbreviated yes": ["accounts", "disable", ADA, "--ye"],
    "unknown option": ["keys", "list", "--everything"],
    "unknown short option": ["keys", "list", "-x"],
    "one dash": ["keys", "list", "-account", ADA],
    "underscore": ["keys", "create", "x", "--time_unit", "day"],
    "option in capitals": ["keys", "list", "--ACCOUNT", ADA],
    "a dash of another kind": ["keys", "list", "\u2014account", ADA],
    "an option after --": ["keys", "list", "--", "--json"],
    "a command after --": ["--", "keys", "list", "--nosuch"],
    "value of a flag": ["keys", "list", "--json=yes"],
    "option without value": ["keys", "list", "--account"],
    "two names": ["keys", "show", NOBODY, NOBODY],
    "no name": ["keys", "show"],
    "empty command": [""],
    "command with a space": ["keys list"],
    "negative limit": ["keys", "list", "--limit", "-1"],
    "limit 0": ["keys", "list", "--limit", "0"],
    "limit with a fraction": ["keys", "list", "--limit", "1.5"],
    "limit 1e9": ["keys", "list", "--limit", "1e9"],
    "limit of 5,000 digits": ["keys", "list", "--limit", "9" * 5000],
    "expiring ''": ["keys", "list", "--expiring", ""],
    "expiring -1": ["keys", "list", "--expiring", "-1"],
    "expiring 1e9": ["keys", "list", "--expiring", "1e9"],
    "expiring 7x": ["keys", "list", "--expiring", "7x"],
    "expiring P1Y": ["keys", "list", "--expiring", "P1Y"],
    "expiring 10 years": ["keys", "list", "--expiring", "521w"],
    "status of a tick": ["keys", "list", "--status", "active "],
    "event 0": ["events", "show", "0"],
    "event 2**63": ["events", "show", str(2**63)],
    "event Arabic": ["events", "show", "x\u0661"],
    "send at 30 February": ["events", "send", "account.disabled", ADA, "--at", "2026-02-30"],
    "send sequence -1": ["events", "send", "account.disabled", ADA, "--sequence=-1"],
    "send unknown type": ["events", "send", "account.exploded", ADA],
    "send to nobody": ["events", "send", "account.disabled", ""],
    "send two addresses": ["events", "send", "account.disabled", "a@b.c,d@e.f"],
    "send a long id": ["events", "send", "account.disabled", ADA, "--id", "x" * 513],
    "parse, unknown provider": ["events", "parse", "-", "--provider", "../native"],
    "parse a directory": ["events", "parse", ".", "--provider", "okta"],
    "parse ''": ["events", "parse", "", "--provider", "okta"],
    "parse a file of nobody": ["events", "parse", "/nosuch/\u202e", "--provider", "okta"],
    "identity of no source": ["accounts", "link", ADA, "okta"],
    "identity ''": ["accounts", "link", ADA, ""],
    "identity, long": ["accounts", "link", ADA, "okta:" + "x" * 513],
}

REFUSED: dict[str, tuple[list[str], str]] = {
    "account ''": (["accounts", "disable", "", "--yes"], "user_unknown"),
    "account *": (["accounts", "disable", "*", "--yes"], "user_unknown"),
    "account %": (["accounts", "disable", "%", "--yes"], "user_unknown"),
    "account _": (["accounts", "disable", "ada_example.com", "--yes"], "user_unknown"),
    "account of 1 MB": (["accounts", "show", "x" * 100_000], "user_unknown"),
    "account a look-alike": (["accounts", "show", "\u0430da@example.com"], "user_unknown"),
    "account right to left": (["accounts", "show", "\u202e" + ADA], "user_unknown"),
    "account SQL": (["accounts", "show", "'; DROP TABLE keyturn.accounts; --"], "user_unknown"),
    "account upwards": (["accounts", "show", "../" + ADA], "user_unknown"),
    "new account, two": (["accounts", "create", "a@b.c,d@e.f", "--role", "member"],
                         "email_invalid"),
    "new account, lines": (["accounts", "create", "a@b.c\r\nBcc: d@e.f", "--role", "member"],
                           "email_invalid"),
    "new account, invisible": (["accounts", "create", "a\u200b@b.c", "--role", "member"],
                               "email_invalid"),
    "new account, long": (["accounts", "create", "a" * 100_000 + "@b.c", "--role", "member"],
                          "email_invalid"),
    "key ''": (["keys", "delete", "", "--yes"], "key_unknown"),
    "key *": (["keys", "delete", "*", "--yes"], "key_unknown"),
    "key %": (["keys", "rotate", "%"], "key_unknown"),
    "key unknown": (["keys", "rotate", NOBODY], "key_unknown"),
    "key in braces": (["keys", "show", "{" + NOBODY + "}"], "key_unknown"),
    "key in Arabic digits": (["keys", "show", "\u0661" * 32], "key_unknown"),
    "key of 100 KB": (["keys", "show", "0" * 100_000], "key_unknown"),
    "rotation *": (["rotations", "cancel", "*", "--yes"], "rotation_unknown"),
    "rotation ''": (["rotations", "show", ""], "rotation_unknown"),
    "job ''": (["run", ""], "job_unknown"),
    "job in capitals": (["run", "KEYS.EXPIRE_DUE"], "job_unknown"),
    "job upwards": (["run", "../keys.expire_due"], "job_unknown"),
    "event of nobody": (["events", "dismiss", str(2**63 - 1), "--reason", ""], "event_unknown"),
}  # fmt: skip


def test_wrong_usage_is_told_and_nothing_is_done(cli: Cli) -> None:
    for name, command in USAGE.items():
        told = cli(*command)
        assert (told.exit_code, told.stdout) == (2, ""), name
        assert "Error: " in told.stderr, name
        assert len(told.stderr) < 6000, name
    assert cli.json("accounts", "show", ADA)["held"] is False
    assert cli.json("events", "list") == []


def test_names_that_are_nobodys(cli: Cli) -> None:
    for name, (command, code) in REFUSED.items():
        assert cli.refusal(*command) == code, name
    assert [one["held"] for one in cli.json("accounts", "list")] == [False]


def test_odd_texts_are_kept_as_they_are(cli: Cli) -> None:
    """What a person calls a key is free, and shown so that it steers no terminal."""
    names = ["x" * 200, "*", "%", "--", "\u00e9", "\U0001f511", "'; DROP TABLE keyturn.api_keys"]
    options = ("--user", ADA, "--role", "member", "--validity", "30", "--time-unit", "day")
    for name in names:
        cli.ok("keys", "create", *options, "--", name)
    assert {key["name"] for key in cli.json("keys", "list")} == set(names)
    for name in ("\u202egpj.exe", "\x1b[2J", "a\nb"):
        told = cli("keys", "create", *options, "--", name)
        assert told.exit_code in (0, 3)
        assert name not in told.output
    listed = cli.ok("keys", "list")
    assert "\x1b" not in listed
    assert "\u202e" not in listed
    cli.ok("accounts", "disable", ADA, "--yes", "--reason", "\u202e\x1b[2J" * 100)
    assert "\x1b" not in cli.ok("accounts", "show", ADA)


# --- stdin


def test_what_is_no_key_on_stdin(cli: Cli) -> None:
    key = cli.new_key()
    text = key["text"].encode()
    for stdin in (b"", b"\n", b" \t\r\n"):
        assert cli("keys", "verify", stdin=stdin).exit_code == 2
        assert cli("keys", "claim", stdin=stdin).exit_code == 2
    bad = [
        b"\0",
        b"\xff\xfe",
        bytes(range(256)),
        text + b"x",
        text + b"\0",
        text * 2,
        text[:-1],
        text.upper(),
        text.decode().encode("utf-16"),
        b"x" * 10_000_000,
        b"\xef\xbb\xbf" + text,
    ]
    for stdin in bad:
        told = cli("keys", "verify", stdin=stdin)
        assert told.exit_code == 3, stdin[:40]
        assert key["text"] not in told.output
        assert cli("keys", "claim", stdin=stdin).exit_code == 3, stdin[:40]
    for stdin in (text, text + b"\n", text + b"\r\n", b"  " + text + b"\n\n"):
        assert cli("keys", "verify", stdin=stdin).exit_code == 0


def closed(*numbers: int) -> Callable[[], None]:
    def close() -> None:
        for number in numbers:
            os.close(number)

    return close


@pytest.mark.parametrize(
    "command", [["keys", "verify"], ["keys", "claim"], ["keys", "rotate", "-"]], ids=" ".join
)
def test_closed_stdin_is_empty_stdin(cli: Cli, command: list[str]) -> None:
    done = keyturn(*command, before=closed(0))
    assert done.code == 2
    assert "there is no key on stdin" in done.err


def test_closed_stdin_of_a_message_and_of_a_question(cli: Cli) -> None:
    assert keyturn("events", "parse", "-", "--provider", "okta", before=closed(0)).code == 3
    assert keyturn("accounts", "disable", ADA, before=closed(0)).code == 2


def test_without_stdout_nothing_is_done(cli: Cli) -> None:
    """A key would be created whose text nobody has seen."""
    options = ("--user", ADA, "--role", "member", "--validity", "30", "--time-unit", "day")
    done = keyturn("keys", "create", "lost", *options, before=closed(1))
    assert done.code == 1
    assert "stdout is closed" in done.err
    assert cli.json("keys", "list") == []
    assert keyturn("keys", "list", before=closed(2)).code == 0
    assert keyturn("keys", "nosuch", before=closed(2)).code == 2


@pytest.mark.parametrize("command", [["--help"], ["roles", "list"], ["keys", "--help"]])
def test_a_full_disk_is_told(cli: Cli, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = keyturn(*command, stdout=full)
    assert done.code == 1
    assert "No space left" in done.err


@pytest.mark.parametrize("command", [["--help"], ["roles", "list"], ["roles", "list", "--json"]])
def test_a_reader_that_goes_away(cli: Cli, command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as out:
        assert keyturn(*command, stdout=out) == Done(1, "", "")


def test_bytes_that_no_locale_reads(cli: Cli) -> None:
    plain = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = keyturn("keys", "verify", stdin=b"\xff\xfe", more=plain)
    assert (done.code, done.err) == (3, "")
    options = ("--user", ADA, "--role", "member", "--validity", "30", "--time-unit", "day")
    assert keyturn("keys", "create", "\u00e9\u4e2d", *options, more=plain).code in (0, 2, 3)
    assert keyturn("keys", "list", more=plain).code == 0


# --- secrets as arguments


def test_a_key_as_any_argument_is_refused_and_not_repeated(cli: Cli) -> None:
    key = cli.new_key()
    text = key["text"]
    for command in (
        [text],
        ["run", text],
        ["keys", text],
        ["keys", "verify", text],
        ["keys", "verify", f"--{text}"],
        ["keys", "claim", text, "--json"],
        ["keys", "rotate", key["id"], "--idempotency-key", text],
        ["keys", "list", f"--status={text}"],
        ["accounts", "show", f"<{text}>"],
        ["events", "send", "account.compromised", f"key:{text}"],
    ):
        done = keyturn(*command)
        assert (done.code, done.out) == (2, ""), command
        assert text not in done.err
        assert "stdin" in done.err


# --- terminals and interruption


@pytest.mark.parametrize("columns", ["1", "-5", "many", ""])
def test_any_width_of_a_terminal(cli: Cli, columns: str) -> None:
    cli.new_key()
    for command in (["keys", "list"], ["doctor"], ["--help"], ["keys", "create", "--help"]):
        done = keyturn(*command, more={"COLUMNS": columns, "NO_COLOR": "1", "TERM": "dumb"})
        assert (done.code, done.err) == (0, ""), command
        assert "\x1b" not in done.out


def test_ctrl_c_while_the_database_hangs(cli: Cli) -> None:
    """A server that takes the connection and says nothing."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        url = {"KEYTURN_DATABASE_URL": f"postgresql://u:hidden@127.0.0.1:{port}/x"}
        running = subprocess.Popen(
            [*KEYTURN, "keys", "list"],
            env=os.environ | url,
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        server.settimeout(20)
        connection, _ = server.accept()
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=20)
        connection.close()
    assert running.returncode == 130
    assert b"Traceback" not in out + err


# --- servers

UNREACHABLE: dict[str, tuple[str, str, str]] = {
    "no server": ("DATABASE_URL", "postgresql://u:hidden@127.0.0.1:{free}/x", "does not answer"),
    "no such host": (
        "DATABASE_URL",
        "postgresql://u:hidden@nosuch.invalid/x?sslmode=require",
        "does not answer",
    ),
    "no such database": ("DATABASE_URL", "{database}_nosuch", "does not exist"),
    "wrong role": ("DATABASE_URL", "{other}", "does not answer"),
    "an option of nobody": ("DATABASE_URL", "{database}?nosuch=1", "nosuch"),
    "port as text": ("DATABASE_URL", "postgresql://u:hidden@127.0.0.1:abc/x", "not a PostgreSQL"),
    "two signs": ("DATABASE_URL", "postgresql://u:a@hidden@127.0.0.1:1/x", "%40"),
}


@pytest.mark.parametrize("name", UNREACHABLE)
def test_a_database_that_cannot_be_used(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, database_url: str, name: str
) -> None:
    setting, value, said = UNREACHABLE[name]
    plain = database_url.partition("?")[0]
    base = value.format(
        free=free_port(), database=plain, other=database_url.replace("keyturn@", "nosuch@", 1)
    )
    query = database_url.partition("?")[2]
    whole = f"{base}?{query}" if base.startswith(plain + "_") else base
    monkeypatch.setenv(f"KEYTURN_{setting}", whole)
    for command in (["keys", "list"], ["migrate"], ["run", "keys.expire_due"], ["intake"]):
        told = cli("--json", *command)
        assert told.exit_code == 1, (command, told.output)
        message = json.loads(told.stdout)["error"]["message"]
        assert said in message
        assert "hidden" not in message


@pytest.mark.parametrize(
    "url", ["redis://:hidden@127.0.0.1:{}/0", "amqp://u:hidden@127.0.0.1:{}//"]
)
def test_a_broker_that_cannot_be_reached(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("KEYTURN_BROKER_URL", url.format(free_port()))
    told = cli("--json", "events", "send", "account.disabled", ADA)
    assert told.exit_code == 1
    error = json.loads(told.stdout)["error"]
    assert error["code"] == "server_failed"
    assert "hidden" not in told.output


def test_a_wrong_password_of_the_broker(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, broker_url: str
) -> None:
    server = broker_url.rpartition("@")[2]
    monkeypatch.setenv("KEYTURN_BROKER_URL", f"redis://:hidden@{server}")
    told = cli("--json", "events", "send", "account.disabled", ADA)
    assert told.exit_code == 1
    assert "hidden" not in told.output
    assert cli.json("accounts", "disable", ADA, "--yes")["changed"] is True
