"""`keyturn events parse` over every provider, with guesses, mappings, requests and sources."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.worker.cli.conftest import Cli
from tests.worker.intake.test_providers_ssf import jwt, token
from worker.intake.providers import NAMES, PROVIDERS

FIXTURES = Path(__file__).parents[2] / "fixtures" / "events"
GUESSED = [
    (
        path,
        next(name for name in sorted(NAMES, key=len, reverse=True) if path.name.startswith(name)),
    )
    for path in sorted(FIXTURES.glob("*.*"))
]
HR = 'type = "what"\n[[account]]\nvalue = "who"\n[types]\nLEFT = "disabled"\n'


@pytest.fixture
def nothing_set(bare_cli: Cli, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Without a database, a broker, a secret; and not even the settings are read."""
    monkeypatch.setenv("KEYTURN_NO_SUCH_SETTING", "1")
    return bare_cli


@pytest.mark.parametrize(
    ("path", "provider"), GUESSED, ids=[f"{provider}-{path.name}" for path, provider in GUESSED]
)
def test_a_guess_reads_as_the_provider_does(nothing_set: Cli, path: Path, provider: str) -> None:
    named = nothing_set("events", "parse", str(path), "--provider", provider)
    guessed = nothing_set("events", "parse", str(path), "--provider", "auto")
    assert (named.exit_code, guessed.exit_code) == (0, 0)
    assert json.loads(named.stdout) == json.loads(guessed.stdout) != []
    assert named.stderr == ""
    assert guessed.stderr.startswith("keyturn: read as ")


def test_there_is_a_fixture_of_each_provider() -> None:
    assert {provider for _, provider in GUESSED} == set(PROVIDERS)


def test_what_nobody_sends_is_not_guessed(nothing_set: Cli) -> None:
    for body in (b"{}", b'{"hello": "world"}', b"hello", b"", b"[]", b"[[1]]"):
        told = nothing_set("events", "parse", "-", "--provider", "auto", stdin=body)
        assert (told.exit_code, told.stdout) == (3, "")
        assert told.stderr.startswith("keyturn: not_recognised: ")


def test_a_compact_jws_in_a_file(nothing_set: Cli, tmp_path: Path) -> None:
    file = tmp_path / "event.jwt"
    file.write_bytes(jwt(token()) + b"\n")
    [event] = nothing_set.json("events", "parse", str(file), "--provider", "ssf")
    assert event["action"] == "disabled"


def test_the_request_line_and_headers_of_a_file(nothing_set: Cli, tmp_path: Path) -> None:
    file = tmp_path / "hook.http"
    file.write_text(
        "POST /hooks HTTP/1.1\nX-GitHub-Event: installation\nX-GitHub-Delivery: d-1\n\n"
        '{"action": "suspend", "installation": {"account": {"id": 7}}}'
    )
    [event] = nothing_set.json("events", "parse", str(file), "--provider", "github")
    assert (event["action"], event["event_id"]) == ("disabled", "d-1")
    given = ("--header", "X-GitHub-Delivery=other")
    [event] = nothing_set.json("events", "parse", str(file), "--provider", "github", *given)
    assert event["event_id"] == "other"
    other = tmp_path / "other.http"
    other.write_text('{"action": "blocked", "blocked_user": {"id": 1}}')
    assert nothing_set.json("events", "parse", str(other), "--provider", "github")


def test_headers_are_named_in_any_case(nothing_set: Cli) -> None:
    body = b'{"action": "suspend", "installation": {"account": {"id": 7}}}'
    header = ("--header", "X-GITHUB-EVENT=installation")
    [event] = nothing_set.json("events", "parse", "-", "--provider", "github", *header, stdin=body)
    assert event["subject"]["format"] == "tenant"


def test_a_mapping_of_ones_own(nothing_set: Cli, tmp_path: Path) -> None:
    mapping = tmp_path / "hr.toml"
    mapping.write_text(HR)
    parse = ("events", "parse", "-", "--provider", "mapped")
    given = ("--mapping", str(mapping))
    [event] = nothing_set.json(*parse, *given, stdin=b'{"what": "LEFT", "who": 42}')
    assert (event["action"], event["subject"]["value"]) == ("disabled", "42")
    mapping.write_text('type = "a["\n')
    told = nothing_set(*parse, *given, stdin=b"{}")
    assert told.exit_code != 0
    assert "not JMESPath" in told.stderr


def test_a_leaked_token_is_never_printed(nothing_set: Cli) -> None:
    body = json.dumps([{"token": "acme_CANARY", "type": "x", "url": ""}, {"token": 5}]).encode()
    told = nothing_set("events", "parse", "-", "--provider", "github", stdin=body)
    assert told.exit_code == 3
    assert [event["action"] for event in json.loads(told.stdout)] == ["key_leaked"]
    assert "CANARY" not in told.stdout + told.stderr


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--provider", "mapped"],
        ["--provider", "okta", "--mapping", "x.toml"],
        ["--provider", "okta", "--source", "okta"],
        ["--provider", ""],
        ["--provider", "OKTA"],
    ],
)
def test_how_it_is_to_be_used(nothing_set: Cli, options: list[str]) -> None:
    told = nothing_set("events", "parse", "-", *options, stdin=b"{}")
    assert (told.exit_code, told.stdout) == (2, "")


def test_a_header_as_http_writes_it_is_told_from_one_as_the_option_wants_it(
    nothing_set: Cli,
) -> None:
    header = ("--header", "X-Hub-Signature-256: sha256=00")
    told = nothing_set("events", "parse", "-", "--provider", "github", *header, stdin=b"{}")
    assert told.exit_code == 2
    assert "a header's name has no blank" in " ".join(told.stderr.split())


BLOCKED = b'{"action": "blocked", "blocked_user": {"id": 1}, "organization": {"login": "o"}}'


def test_whose_message_it_looks_like_is_told_where_another_was_named(bare_cli: Cli) -> None:
    Path("keyturn.toml").write_text('[sources.hub]\nprovider = "okta"\nstream = "hub"\n')
    header = ("--header", "X-GitHub-Event=org_block")
    for named in (("--provider", "okta"), ("--source", "hub")):
        told = bare_cli("events", "parse", "-", *named, *header, stdin=BLOCKED)
        assert told.exit_code == 3
        assert "looks like a message of github: it has the header x-github-event" in told.stderr
    told = bare_cli("events", "parse", "-", "--provider", "github", *header, stdin=b"{")
    assert told.exit_code == 3
    assert "looks like" not in told.stderr


def test_a_source_of_the_settings(bare_cli: Cli) -> None:
    Path("keyturn.toml").write_text(
        '[sources.gl]\nprovider = "gitlab"\nstream = "gl"\n'
        'actions = { "user_failed_login.blocked" = "disabled" }\n'
        '[sources.hr]\nprovider = "mapped"\nstream = "hr"\n[sources.hr.mapping]\n'
        'type = "what"\naccount = [{ value = "who" }]\ntypes = { LEFT = "deleted" }\n'
    )
    message: dict[str, Any] = {"event_name": "user_failed_login", "state": "blocked", "user_id": 1}
    [event] = bare_cli.json("events", "parse", "-", "--source", "gl",
                            stdin=json.dumps(message).encode())  # fmt: skip
    assert event["action"] == "disabled"
    [event] = bare_cli.json("events", "parse", "-", "--source", "hr",
                            stdin=b'{"what": "LEFT", "who": "a"}')  # fmt: skip
    assert event["action"] == "deleted"
    assert bare_cli.refusal("events", "parse", "-", "--source", "no", stdin=b"{}") == (
        "source_unknown"
    )


def test_with_a_source_the_proof_is_looked_at(
    bare_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir(mode=0o700)
    (secrets / "source-gl-1").write_text("a secret of gitlab")
    (secrets / "source-gl-1").chmod(0o600)
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(secrets))
    Path("keyturn.toml").write_text(
        '[sources.gl]\nprovider = "gitlab"\nstream = "gl"\n'
        'proof = { scheme = "header", header = "x-gitlab-token" }\n'
    )
    parse = ("events", "parse", "-", "--source", "gl")
    body = b'{"event_name": "user_destroy", "user_id": 42}'
    for headers in ((), ("--header", "X-Gitlab-Token=another secret of it")):
        told = bare_cli(*parse, *headers, stdin=body)
        assert (told.exit_code, told.stdout) == (3, "")
        assert told.stderr.startswith("keyturn: unverified: ")
    right = ("--header", "X-Gitlab-Token=a secret of gitlab")
    [event] = bare_cli.json(*parse, *right, stdin=body)
    assert event["action"] == "deleted"
    assert bare_cli.json("events", "parse", "-", "--provider", "gitlab", stdin=body) == [event]
