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
