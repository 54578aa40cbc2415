"""`keyturn events`: what a message means, what came in, and sending one."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from models import inbox
from models.base import Database
from models.events import AccountEvent, Action
from models.inbox import Received, Rejection, Source
from tests.worker.cli.conftest import ADA, Cli
from worker.intake.providers import native

FIXTURES = Path(__file__).parents[2] / "fixtures" / "events"
OKTA = FIXTURES / "okta-hook-suspend-and-delete.json"


def test_parse_prints_normalised_events_and_touches_nothing(
    bare_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_NO_SUCH_SETTING", "not even settings are read")
    told = bare_cli("events", "parse", str(OKTA), "--provider", "okta")
    assert (told.exit_code, told.stderr) == (0, "")
    events = json.loads(told.stdout)
    assert [event["action"] for event in events] == ["disabled", "deleted", "none"]
    assert events[0]["subject"]["format"] == "opaque"
    assert events[0]["occurred_at"].endswith("Z")
    assert bare_cli.json("events", "parse", "-", "--provider", "okta", stdin=OKTA.read_bytes()) == (
        events
    )


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("empty_body", b""),
        ("not_json", b"{bad"),
        ("not_json", b"\xff\xfe"),
        ("not_an_object", b"[1]"),
        ("unknown_type", b'{"type": "account.exploded", "account": "a@example.com"}'),
        ("too_large", b" " * (10 * 1024 * 1024)),
    ],
)
def test_parse_refuses_what_it_cannot_read(bare_cli: Cli, code: str, body: bytes) -> None:
    told = bare_cli("events", "parse", "-", "--provider", "native", stdin=body)
    assert (told.exit_code, told.stdout) == (3, "")
    assert told.stderr.startswith(f"keyturn: {code}: ")
    assert bare_cli.refusal("events", "parse", "-", "--provider", "native", stdin=body) == code


def test_parse_prints_the_readable_members_of_a_batch(bare_cli: Cli) -> None:
    batch = json.dumps([json.loads((FIXTURES / "keycloak-user-delete.json").read_text()), 7])
    told = bare_cli("events", "parse", "-", "--provider", "keycloak", stdin=batch)
    assert told.exit_code == 3
    assert [event["action"] for event in json.loads(told.stdout)] == ["deleted"]
    assert told.stderr.startswith("keyturn: not_an_object: ")


def test_parse_is_told_how_to_be_used(bare_cli: Cli) -> None:
    for wrong in (
        ["nosuch.json", "--provider", "native"],
        [str(OKTA), "--provider", "nosuch"],
        [str(OKTA), "--provider", "okta", "--header", "no-sign"],
        [str(OKTA)],
    ):
        told = bare_cli("events", "parse", *wrong)
        assert (told.exit_code, told.stdout) == (2, "")
    headers = ("--header", "X-Request=1", "--header", "Content-Type=a=b")
    assert bare_cli.json("events", "parse", str(OKTA), "--provider", "okta", *headers)


def test_send_publishes_what_the_native_adapter_reads(cli: Cli, broker_url: str) -> None:
    optional = ("--id", "42", "--at", "2026-11-23T08:40:00Z", "--sequence", "7", "--reason", "left")
    entry = cli.ok("events", "send", "account.disabled", ADA, *optional).strip()
    sent = cli.json("events", "send", "account.enabled", ADA)
    assert sent["stream"] == "keyturn:in"
    with redis.Redis.from_url(broker_url) as server:
        stored: list[tuple[bytes, dict[bytes, bytes]]] = server.xrange("keyturn:in")
    assert [name.decode() for name, _ in stored] == [entry, sent["entry"]]
    [first] = native.from_fields(stored[0][1])
    assert isinstance(first, AccountEvent)
    assert (first.action, first.event_id, first.sequence) == ("disabled", "42", 7)
    assert first.subject is not None
    assert first.subject.value == ADA


def test_send_of_a_tenant(cli: Cli, broker_url: str) -> None:
    cli.ok("events", "send", "tenant.disabled", "acme")
    with redis.Redis.from_url(broker_url) as server:
        [(_, fields)] = server.xrange("keyturn:in")
    assert fields == {b"type": b"tenant.disabled", b"tenant": b"acme"}


UNREADABLE = [
    ["account.exploded", ADA],
    ["account.disabled", ""],
    ["tenant.disabled", ""],
    ["account.disabled", "a,b@example.com"],
    ["account.disabled", ADA, "--at", "2026-02-30"],
    ["account.disabled", ADA, "--at", "2026-02-30T00:00:00Z"],
    ["account.disabled", ADA, "--sequence", "-1"],
    ["account.disabled", ADA, "--id", "x" * 513],
]


def test_send_publishes_nothing_that_cannot_be_read(cli: Cli, broker_url: str) -> None:
    assert [cli("events", "send", *wrong).exit_code for wrong in UNREADABLE] == [2] * 8
    with redis.Redis.from_url(broker_url) as server:
        assert server.xlen("keyturn:in") == 0


def store(
    database_url: str, *received: Received, trust: frozenset[Action] = frozenset(Action)
) -> Sequence[int]:
    database = Database(database_url)
    source = Source("native", "native", trust)
    database.run(lambda tx: inbox.accept(tx, source, received))
    with database.begin() as tx:
        numbers = [event.id for event in inbox.listed(tx)]
    database.close()
    return numbers


def disabled(account: str) -> Received:
    fields = {b"type": b"account.disabled", b"account": account.encode()}
    [event] = native.from_fields(fields)
    assert isinstance(event, AccountEvent)
    return Received(f"to {account}", event, {}, b"")


def test_what_came_in_is_listed_and_shown(cli: Cli, database_url: str) -> None:
    store(
        database_url,
        disabled(ADA),
        Received("2", Rejection("not_json", "mend \x1b[31mthe producer"), {}, b"{bad"),
    )
    told = cli.ok("events", "list")
    assert "\x1b" not in told
    assert ADA in told
    assert "not_json" in told
    assert all(len(line) <= 80 for line in told.splitlines())
    rejected, received = cli.json("events", "list")
    assert (received["state"], rejected["state"]) == ("received", "rejected")
    assert cli.json("events", "list", "--state", "rejected") == [rejected]
    assert ADA in cli.ok("events", "show", str(received["id"]))
    assert cli.json("events", "show", str(rejected["id"]))["reason"].startswith("not_json")


def test_a_rejected_event_is_replayed_once_it_can_be_read(cli: Cli, database_url: str) -> None:
    body = json.dumps({"type": "account.disabled", "account": ADA}).encode()
    unreadable, readable = store(
        database_url,
        Received("1", Rejection("not_read", "by an older version"), {}, body),
        Received("2", Rejection("not_json", "mend the producer"), {}, b"{bad"),
    )
    unreadable, readable = max(unreadable, readable), min(unreadable, readable)
    assert cli.json("events", "replay", str(readable))["outcomes"] == ["received"]
    assert cli.json("events", "show", str(readable))["state"] == "done"
    assert cli.refusal("events", "replay", str(unreadable)) == "not_json"
    cli.ok("run", "accounts.apply_events")
    assert cli.json("accounts", "show", ADA)["held"] is True


def test_a_waiting_event_is_replayed_and_a_finished_one_not(cli: Cli, database_url: str) -> None:
    [number] = store(database_url, disabled("emp-7"))
    cli.ok("run", "accounts.apply_events")
    assert cli.json("events", "show", str(number))["state"] == "waiting_for_account"
    assert "received" in cli.ok("events", "replay", str(number))
    assert cli.json("events", "show", str(number))["state"] == "received"
    cli.ok("run", "accounts.apply_events")
    named = ("--identity", "native:emp-7")
    cli.ok("accounts", "create", "bob@example.com", "--role", "member", *named)
    assert cli.json("events", "show", str(number))["state"] == "done"
    assert cli.json("accounts", "show", "bob@example.com")["held"] is True
    assert cli.refusal("events", "replay", str(number)) == "event_finished"


def test_an_untrusted_event_is_replayed_only_once_its_source_is_trusted(
    cli: Cli, database_url: str
) -> None:
    source = '[sources.native]\nprovider = "native"\nstream = "keyturn:in"\ntrust = '
    Path("keyturn.toml").write_text(f'{source}["enabled"]')
    [number] = store(database_url, disabled(ADA), trust=frozenset())
    assert cli.refusal("events", "replay", str(number)) == "not_trusted"
    assert cli.json("events", "show", str(number))["state"] == "parked"
    Path("keyturn.toml").write_text(f'{source}"any"')
    cli.ok("events", "replay", str(number))
    cli.ok("run", "accounts.apply_events")
    assert cli.json("accounts", "show", ADA)["held"] is True


def test_an_account_that_completes_a_burst_is_an_alarm(
    cli: Cli, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEYTURN_BURST_ACCOUNTS", "1")
    store(database_url, disabled("emp-7"), disabled("emp-8"))
    cli.ok("run", "accounts.apply_events")
    create = ("accounts", "create", "--role", "member")
    assert (
        "source_cuts_many" not in cli(*create, "a@example.com", "--identity", "native:emp-7").stderr
    )
    assert "source_cuts_many" in cli(*create, "b@example.com", "--identity", "native:emp-8").stderr


def test_what_nothing_can_be_done_about_is_dismissed(cli: Cli, database_url: str) -> None:
    [number] = store(database_url, Received("2", Rejection("not_json", "mend it"), {}, b"{bad"))
    dismiss = ("events", "dismiss", str(number), "--reason", "a test message")
    cli.ok(*dismiss)
    shown = cli.json("events", "show", str(number))
    assert shown["state"] == "ignored"
    assert shown["reason"].endswith(": a test message")
    assert cli.json("status")["events"] == {}
    assert cli.refusal(*dismiss) == "event_finished"
