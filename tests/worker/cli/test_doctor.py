"""`keyturn doctor`: which promises are kept."""

import json

import pytest

from models.base import Database
from models.invariants import PROMISES
from tests.worker.cli.conftest import Cli

NAMES = tuple(f"{promise.name} " for promise in PROMISES)


@pytest.fixture
def database(database_url: str) -> Database:
    return Database(database_url, pool_size=0)


@pytest.mark.parametrize("options", [(), ("--full",)])
def test_all_promises_are_kept(cli: Cli, options: tuple[str, ...]) -> None:
    cli.new_key()
    told = cli.ok("doctor", *options)
    assert [line.split()[1] for line in told.splitlines() if line.startswith(NAMES)] == (
        ["yes"] * len(PROMISES)
    )
    assert cli.json("doctor", *options) == {"kept": True, "full": bool(options), "broken": []}


def test_a_broken_one_is_shown_with_what_breaks_it(cli: Cli, database: Database) -> None:
    key = cli.new_key()
    with database.begin() as tx:
        tx.execute("UPDATE keyturn.api_keys SET version = version + 1")
    told = cli("doctor", "--full")
    assert told.exit_code == 1
    assert f"audit_is_dense: {key['id']}" in told.stdout
    [line] = [line for line in told.stdout.splitlines() if line.startswith("audit_is_dense ")]
    assert line.split()[1:3] == ["NO:", "1"]
    told = cli("doctor", "--json")
    assert told.exit_code == 1
    [broken] = json.loads(told.stdout)["broken"]
    assert (broken["name"], broken["count"]) == ("audit_is_dense", 1)
    assert broken["rows"] == [key["id"]]
