"""`keyturn audit`: whether the audit is as it was sealed, and whether it still has its end."""

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.eventually import eventually
from tests.worker.cli.conftest import Cli


@pytest.fixture
def server(database_url: str) -> Iterator[psycopg.Connection]:
    """The superuser."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def sealed(cli: Cli) -> Cli:
    """An audit of an account and two keys, all of it sealed."""
    cli.new_key("first")
    cli.new_key("second")
    seal(cli)
    return cli


def seal(cli: Cli) -> None:
    def all_sealed() -> bool:
        cli.ok("run", "upkeep.seal_audit")
        return bool(cli.json("audit", "verify")["found"]["waiting"] == 0)

    eventually(all_sealed)


@pytest.fixture
def anchor(sealed: Cli, tmp_path: Path) -> str:
    """A file with the chain's anchor."""
    file = tmp_path / "anchor.json"
    file.write_text(sealed.ok("audit", "anchor"))
    return str(file)


def test_an_audit_as_it_was_sealed(sealed: Cli, anchor: str) -> None:
    told = sealed.ok("audit", "verify")
    assert "as it was sealed  yes" in told
    assert "none given: a cut end is not seen" in told
    document = sealed.json("audit", "verify", "--anchor", anchor)
    assert (document["verified"], document["anchored"]) == (True, True)
    found = document["found"]
    assert found["seals"] >= 1
    assert found["entries"] == 3  # the account and two keys
    assert (found["waiting"], found["waiting_since"], found["problems"]) == (0, None, [])
    assert sealed.ok("audit", "verify", "--anchor", "-", stdin=Path(anchor).read_bytes())


def test_an_anchor_is_the_newest_seal(sealed: Cli, server: psycopg.Connection) -> None:
    printed = json.loads(sealed.ok("audit", "anchor"))
    assert sealed.json("audit", "anchor") == printed
    newest = server.execute(
        "SELECT number, encode(hash, 'hex') FROM keyturn.audit_seals ORDER BY 1 DESC LIMIT 1"
    ).fetchone()
    assert (printed["seal"], printed["hash"]) == newest
    assert printed["entries"] == 3
    assert printed["sealed_at"].endswith("Z")


def test_a_changed_entry_is_exit_code_1_and_told(
    sealed: Cli, server: psycopg.Connection, anchor: str
) -> None:
    server.execute("UPDATE keyturn.audit SET actor = 'nobody' WHERE id = 2")
    for options in ([], ["--anchor", anchor]):
        told = sealed("audit", "verify", *options)
        assert told.exit_code == 1
        assert "entry_changed: seal " in told.stdout
        assert "as it was sealed  no" in told.stdout
    told = sealed("audit", "verify", "--json")
    assert told.exit_code == 1
    document = json.loads(told.stdout)
    assert document["verified"] is False
    [problem] = document["found"]["problems"]
    assert (problem["code"], problem["seal"]) == ("entry_changed", 1)


def test_a_cut_end_is_told_by_the_anchor(
    sealed: Cli, server: psycopg.Connection, anchor: str
) -> None:
    server.execute("DELETE FROM keyturn.audit WHERE id > 1")
    server.execute("DELETE FROM keyturn.audit_seals")
    assert sealed("audit", "verify").exit_code == 0
    told = sealed("audit", "verify", "--anchor", anchor)
    assert told.exit_code == 1
    assert "tail_truncated: the anchor is of seal " in told.stdout
    assert "there is no seal at all" in told.stdout
    seal(sealed)
    told = sealed("audit", "verify", "--anchor", anchor)
    assert told.exit_code == 1
    assert "anchor_differs: " in told.stdout or "tail_truncated: " in told.stdout


def test_nothing_sealed_is_refused(cli: Cli) -> None:
    assert cli.refusal("audit", "anchor") == "nothing_sealed"
    assert "keyturn run upkeep.seal_audit" in cli("audit", "anchor").stderr
    assert cli.json("audit", "verify")["found"]["seals"] == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "this is no anchor: the document"),
        (b"{}", "this is no anchor: seal"),
        (b'{"error": {"code": "nothing_sealed"}}', "this is no anchor: seal"),
        (b"\xff", "this is no anchor: the document"),
        (b"[" * 100_000, "this is no anchor: the document"),
    ],
)
def test_what_is_no_anchor_is_wrong_usage(
    cli: Cli, tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "anchor.json"
    file.write_bytes(content)
    told = cli("audit", "verify", "--anchor", str(file))
    assert told.exit_code == 2
    assert message in " ".join(told.stderr.replace("│", "").split())


def test_a_file_that_cannot_be_read_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    for file, why in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        told = cli("audit", "verify", "--anchor", str(file))
        assert told.exit_code == 2
        assert why in told.stderr


def test_the_list_is_of_an_account_with_its_keys_or_of_a_key_or_of_an_actor(cli: Cli) -> None:
    first, second = cli.new_key("first")["id"], cli.new_key("second")["id"]
    cli.ok("accounts", "create", "bob@example.com", "--role", "member")
    other = cli.new_key("other", user="bob@example.com")["id"]
    cli.ok("keys", "disable", first, "--yes", "--reason", "a test")

    def actions(*options: str) -> list[tuple[str, str | None]]:
        return [(one["action"], one["key_id"]) for one in cli.json("audit", "list", *options)]

    everything = actions()
    of_first = [("key.disabled", first), ("hold.placed", first), ("key.created", first)]
    assert actions("--key", first) == of_first
    ada = actions("--account", "ada@example.com")
    assert ada == [one for one in everything if one[1] in (first, second)] + everything[-1:]
    assert ada[-1] == ("account.created", None)
    assert set(actions("--account", "bob@example.com")) == {
        ("account.created", None),
        ("key.created", other),
    }
    assert actions("--account", "bob@example.com", "--key", first) == []
    actor = cli.json("audit", "list", "--key", first)[-1]["actor"]
    assert set(actions("--actor", actor, "--key", first)) == set(of_first)
    assert actions("--actor", "nobody") == []
    assert actions("--limit", "2") == everything[:2]
    told = " ".join(cli.ok("audit", "list", "--key", first).split())
    assert f"key.disabled, key {first} of ada@example.com, active to disabled, " in told
    assert ": a test " in told
    assert cli.ok("audit", "list", "--actor", "nobody").strip() == "No entries."


def test_the_list_goes_back_no_further_than_it_is_asked(
    cli: Cli, server: psycopg.Connection
) -> None:
    cli.new_key("first")
    server.execute("UPDATE keyturn.audit SET at = at - interval '2 days' WHERE key_id IS NULL")
    assert [one["action"] for one in cli.json("audit", "list", "--since", "1d")] == ["key.created"]
    assert len(cli.json("audit", "list", "--since", "3d")) == 2


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--since", "7x"), 2),
        (("--since", "-1d"), 2),
        (("--since", "2026-06-01"), 2),
        (("--limit", "0"), 2),
        (("--account", "nobody@example.com"), 3),
        (("--account", ""), 3),
        (("--key", "no key"), 3),
    ],
)
def test_what_cannot_be_listed_is_refused(cli: Cli, options: tuple[str, str], code: int) -> None:
    result = cli("audit", "list", *options)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    if code == 2:
        assert options[0] in result.stderr
