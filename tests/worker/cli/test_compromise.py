"""`keys rotate --compromised`, `keys report-use` and `why`, as operators give them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from models import Client
from models.key_text import mint
from models.operator import Operator
from tests.worker.cli.conftest import ADA, Cli

ROTATE = ("keys", "rotate")


def reason(cli: Cli, text: str) -> str | None:
    told = cli("keys", "verify", "--json", stdin=text)
    found: str | None = json.loads(told.stdout)["reason"]
    return found


def test_the_key_is_stopped_and_its_successor_shown_once(cli: Cli) -> None:
    key = cli.new_key()
    told = cli(*ROTATE, key["id"], "--compromised", "--yes", "--json", "--reason", "on a wiki")
    assert told.exit_code == 0, told.output
    new = json.loads(told.stdout)
    assert reason(cli, key["text"]) == "key_held"
    assert reason(cli, new["text"]) is None
    assert new["old_key_id"] == key["id"]
    assert new["text"] not in told.stderr
    assert cli.refusal(*ROTATE, key["id"], "--compromised", "--yes") == "already_handed_over"
    assert len(cli.json("keys", "list")) == 2
    assert cli.refusal("keys", "claim", stdin=key["text"]) in ("already_claimed", "key_compromised")
    [hold] = cli.json("keys", "show", key["id"])["holds"]
    assert (hold["source"], hold["kind"], hold["reason"]) == (
        *("operator", "compromised"),
        "on a wiki",
    )


def test_the_key_may_be_given_by_its_text(cli: Cli) -> None:
    key = cli.new_key()
    new = cli.json(*ROTATE, "-", "--compromised", "--yes", stdin=key["text"])
    assert new["old_key_id"] == key["id"]


def test_it_asks_before_and_may_be_tried_dry(cli: Cli) -> None:
    key = cli.new_key()
    asked = cli(*ROTATE, key["id"], "--compromised")
    assert asked.exit_code == 2
    assert "for good" in asked.stderr
    assert "Nothing was done" in cli.ok(*ROTATE, key["id"], "--compromised", "--dry-run")
    assert reason(cli, key["text"]) is None


def test_options_that_go_with_it_are_refused_without_it(cli: Cli) -> None:
    for option in (["--yes"], ["--dry-run"], ["--reason", "x"]):
        told = cli(*ROTATE, str(uuid4()), *option)
        assert told.exit_code == 2
        assert "--compromised" in told.stderr


def test_what_fails_after_the_hold_leaves_it_and_says_so(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cli.new_key()

    def fail(self: Client, key: object) -> None:
        raise OSError("the machine is out of everything")

    with monkeypatch.context() as broken:
        broken.setattr(Operator, "replace_compromised", fail)
        told = cli(*ROTATE, key["id"], "--compromised", "--yes")
    assert told.exit_code == 1
    assert f"Key {key['id']} is stopped." in told.stderr
    assert reason(cli, key["text"]) == "key_held"
    again = cli.json(*ROTATE, key["id"], "--compromised", "--yes")
    assert reason(cli, again["text"]) is None


def test_a_key_of_a_held_account_is_stopped_and_replaced_once_that_is_enabled(cli: Cli) -> None:
    key = cli.new_key()
    cli.ok("accounts", "disable", ADA, "--yes")
    assert cli.refusal(*ROTATE, key["id"], "--compromised", "--yes") == "account_held"
    cli.ok("accounts", "enable", ADA)
    assert reason(cli, key["text"]) == "key_held"
    cli.ok("run", "keys.follow_compromises")
    new = cli.json(*ROTATE, key["id"], "--compromised", "--yes")
    assert reason(cli, new["text"]) is None


# keys report-use


def line(**said: object) -> str:
    return json.dumps(said) + "\n"


def test_a_gateway_reports_uses_as_lines_of_json(cli: Cli) -> None:
    key, other = cli.new_key(), cli.new_key("other")
    now = datetime.now(UTC)
    stdin = (
        line(key=key["id"], at=now.isoformat(), ip="192.0.2.7", count=12)
        + "\n"
        + line(key=other["id"], at=(now - timedelta(minutes=5)).isoformat())
        + line(key=key["id"], at=now.isoformat().replace("+00:00", "Z"), refused=False)
    )
    assert cli.json("keys", "report-use", stdin=stdin) == {"keys": 2, "rejected": []}
    assert cli.json("keys", "show", key["id"])["last_used_at"] is not None


def test_bad_lines_are_named_and_stop_no_other(cli: Cli) -> None:
    key, secret = cli.new_key(), mint("kt").reveal()
    now = datetime.now(UTC).isoformat()
    bad: list[tuple[str, str]] = [
        ("not json\n", "line_invalid"),
        ("[1]\n", "line_invalid"),
        (line(key=key["id"]), "line_invalid"),
        (line(key=key["id"], at=now, more=1), "line_invalid"),
        (line(key=key["id"], at="yesterday"), "time_invalid"),
        (line(key=key["id"], at=12), "time_invalid"),
        (line(key=key["id"], at="2026-12-01T12:00:00"), "time_invalid"),
        (line(key=secret, at=now), "key_id_invalid"),
        (line(key=str(uuid4()), at=now), "key_unknown"),
        (line(key=key["id"], at=now, count=0), "count_invalid"),
        (line(key=key["id"], at=now, ip=7), "line_invalid"),
        (line(key=key["id"], at=now, ip="x" * 5000), "line_invalid"),
        ("[" * 1900 + "\n", "line_invalid"),
    ]
    good = line(key=key["id"], at=now)
    told = cli("keys", "report-use", "--json", stdin=good + "".join(one for one, _ in bad) + good)
    assert told.exit_code == 3
    answer: Any = json.loads(told.stdout)
    assert answer["keys"] == 1
    assert [(one["line"], one["code"]) for one in answer["rejected"]] == [
        (number, code) for number, (_, code) in enumerate(bad, start=2)
    ]
    assert secret not in told.output


def test_nothing_on_stdin_is_nothing_to_report(cli: Cli) -> None:
    assert cli.json("keys", "report-use") == {"keys": 0, "rejected": []}


# why


def test_why_explains_a_key_an_account_and_a_rotation(cli: Cli) -> None:
    key = cli.new_key()
    assert cli.ok("why", key["id"]).startswith(f'Key {key["id"]} "first" of {ADA} works.\n')
    rotation = cli.json("keys", "rotate", key["id"])
    assert "What can be done:" in cli.ok("why", rotation["id"])
    cli.ok("accounts", "disable", ADA, "--yes", "--reason", "left us")
    told = cli.ok("why", ADA)
    assert "held by operator/disabled" in told
    assert "(left us)" in told
    document = cli.json("why", key["id"])
    assert (document["subject"], document["works"]) == ("key", False)


def test_why_takes_a_text_on_stdin_and_no_other_way(cli: Cli) -> None:
    key = cli.new_key()
    told = cli("why", "-", stdin=key["text"])
    assert told.exit_code == 0
    assert key["id"] in told.stdout
    assert key["text"] not in told.output
    given = cli("why", key["text"])
    assert given.exit_code == 2
    assert key["text"] not in given.output
    assert cli.refusal("why", "-", stdin=mint("kt").reveal()) == "key_unknown"
    assert cli.refusal("why", "nobody@example.com") == "nothing_known"
