"""An upgrade from schema 0001 to the newest, with the processes of both releases at work.

The database is moved by the present code while worker, beat, intake and a product of the earlier
release run under load (docs/operations.md, "Upgrade", says in which order).
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
import redis

from models import schema_version
from models.operator import Operator
from tests.eventually import eventually
from tests.flows.invariants import assert_invariants
from tests.flows.processes import environment
from tests.flows.releases import SCHEMA_0001, Product, Release, code_of
from tests.flows.stack import ROOT
from worker.app import QUEUE
from worker.intake.main import JOB
from worker.schedule import TICK

SOON = 90.0
UNHURRIED = {
    "KEYTURN_STATEMENT_TIMEOUT": "15s",
    "KEYTURN_LEASE": "2m",
    "KEYTURN_VISIBILITY_TIMEOUT": "10m",
}
"""The bounds of a real installation: under load no worker may take itself for stuck."""

ACCOUNTS = [f"user{number}@example.com" for number in range(6)]


@pytest.fixture(scope="session")
def old_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return code_of(SCHEMA_0001, tmp_path_factory.mktemp("old"))


@pytest.fixture
def old(
    old_code: Path, empty_database_url: str, broker_url: str, secrets_dir: Path, tmp_path: Path
) -> Release:
    """The release of schema 0001 on a database that it has made."""
    settings = environment(empty_database_url, broker_url, secrets_dir, **UNHURRIED)
    release = Release(old_code, settings, tmp_path)
    assert release.evaluate("models.__file__") == str(old_code / "models" / "__init__.py")
    done = release.keyturn("migrate", "--json")
    assert json.loads(done.stdout) == {"revision": "0001"}, done.stderr
    return release


@pytest.fixture
def new(old: Release) -> Release:
    """The present code, with the same settings."""
    return Release(ROOT, old.environment, old.logs)


@pytest.fixture
def operator(old: Release, secrets_dir: Path) -> Iterator[Operator]:
    """The present library; of use once the database was moved."""
    with Operator(old.environment["KEYTURN_DATABASE_URL"], secrets_dir=secrets_dir) as opened:
        yield opened


class Producer:
    """Disables and enables accounts in turn, and knows how each was left."""

    def __init__(self, url: str) -> None:
        self._redis = redis.Redis.from_url(url)
        self.sent = 0
        self.disabled: dict[str, bool] = {}

    def send(self, account: str, *, disable: bool) -> None:
        self.sent += 1
        verb = "disabled" if disable else "enabled"
        message = {"type": f"account.{verb}", "account": account, "id": f"event-{self.sent}"}
        message["sequence"] = str(self.sent)
        self._redis.xadd("keyturn:in", dict(message.items()))
        self.disabled[account] = disable

    def run(self, accounts: list[str], done: Event) -> None:
        """Send until `done`; every account ends enabled but each third."""
        while not done.wait(0.05):
            account = accounts[self.sent % len(accounts)]
            self.send(account, disable=not self.disabled.get(account, False))
        for number, account in enumerate(accounts):
            self.send(account, disable=number % 3 == 0)


def use(product: Product, account: str, done: Event) -> int:
    """A product's life: create, verify, rotate, claim; returns how often."""
    rounds = 0
    while not done.is_set():
        text = product.ask("create", account)
        assert product.ask("verify", text) == [True, None]
        product.ask("rotate", text)
        successor = product.ask("claim", text)
        assert product.ask("verify", successor) == [True, None]
        rounds += 1
        time.sleep(0.01)
    return rounds


def test_the_earlier_release_goes_on_while_the_schema_moves(
    old: Release, new: Release, operator: Operator
) -> None:
    producer, done = Producer(old.environment["KEYTURN_BROKER_URL"]), Event()
    with old.product() as product, old.product() as busy, ThreadPoolExecutor() as pool:
        for account in (*ACCOUNTS, "busy@example.com"):
            product.ask("account", account)
        keys = {account: product.ask("create", account) for account in ACCOUNTS}
        product.ask("account", "sealed@example.com")
        sealed = product.ask("create", "sealed@example.com")
        product.ask("rotate", sealed)
        with old.services("old"):
            producing = pool.submit(producer.run, ACCOUNTS, done)
            using = pool.submit(use, busy, "busy@example.com", done)
            try:
                eventually(lambda: applied(operator) > 20, within=SOON)
                moved = new.keyturn("migrate", "--json")
                assert json.loads(moved.stdout) == {"revision": schema_version.EXPECTED}
                before = applied(operator)
                eventually(lambda: applied(operator) > before + 40, within=SOON)
            finally:
                done.set()
            producing.result()
            assert using.result() > 3
            # Old code on the new schema: everything that was sent has its effect.
            eventually(lambda: applied(operator) == producer.sent, within=SOON)
            for account, key in keys.items():
                expected = [False, "account_held"] if producer.disabled[account] else [True, None]
                assert product.ask("verify", key) == expected
                assert verdict(operator, key) == expected
    # What the old code left is right by the new code's promises, and goes on there.
    with new.services("new"):
        account = ACCOUNTS[0]
        producer.send(account, disable=False)
        eventually(lambda: operator.verify(keys[account]).valid, within=SOON)
        successor = operator.claim(sealed).secret.reveal()
        assert operator.verify(successor).valid
        assert_invariants(operator)


def test_rings_that_the_earlier_worker_does_not_know_lose_no_work(
    old: Release, new: Release, operator: Operator
) -> None:
    unknown = set(new.evaluate("sorted(tasks.flows())")) - set(
        old.evaluate("sorted(tasks.flows())")
    )
    assert unknown, "the newest schema came with a flow: without one this test shows nothing"
    producer = Producer(old.environment["KEYTURN_BROKER_URL"])
    with old.product() as product:
        product.ask("account", ACCOUNTS[0])
        key = product.ask("create", ACCOUNTS[0])
    # As in the middle of an upgrade: only the earlier worker is there when the new one rings.
    with (
        old.running("old-worker", *worker("old")) as log,
        old.running("old-intake", "worker.cli", "intake"),
    ):
        eventually(lambda: finished(operator) >= {TICK, JOB}, within=SOON)
        assert new.keyturn("migrate").returncode == 0
        for flow in sorted(unknown):
            assert ring(new, flow).returncode == 0
        eventually(lambda: refused(log) >= len(unknown), within=SOON)
        producer.send(ACCOUNTS[0], disable=True)
        eventually(lambda: not operator.verify(key).valid, within=SOON)
        with new.services("new"):
            eventually(lambda: finished(operator) >= unknown, within=SOON)


def test_the_present_code_refuses_the_earlier_schema_before_any_write(
    old: Release, new: Release
) -> None:
    with old.product() as product:
        product.ask("account", ACCOUNTS[0])
        product.ask("create", ACCOUNTS[0])
    before = content(old)
    mend = "run `keyturn migrate`"
    for command in (
        ("keys", "list"),
        ("keys", "create", "x", "--user", ACCOUNTS[0], "--role", "viewer", "--validity", "3600"),
        ("accounts", "disable", ACCOUNTS[0], "--yes"),
        ("run", "keys.expire_due"),
        ("intake",),
    ):
        done = new.keyturn(*command)
        assert (done.returncode, mend in done.stderr) == (4, True), (command, done.stderr)
        assert f"schema is 0001, this Keyturn is written for {schema_version.EXPECTED}" in (
            done.stderr
        )
    refusing = subprocess.run(
        [sys.executable, "-m", *worker("new")],
        cwd=ROOT,
        env=new.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refusing.returncode != 0
    assert "refused_to_start" in refusing.stderr
    assert mend in refusing.stderr
    assert content(old) == before


def test_the_earlier_release_does_not_start_anew_on_the_newer_schema(
    old: Release, new: Release
) -> None:
    assert new.keyturn("migrate").returncode == 0
    before = content(old)
    for command in (("keys", "list"), ("intake",), ("migrate",)):
        done = old.keyturn(*command)
        assert (done.returncode, "upgrade Keyturn" in done.stderr) == (4, True), done.stderr
    assert content(old) == before


def worker(name: str) -> tuple[str, ...]:
    return ("celery", "-A", "worker.main", "worker", "-P", "threads", "-n", f"{name}@%h")


def ring(release: Release, flow: str) -> "subprocess.CompletedProcess[str]":
    """Publish a ring as the release's beat does."""
    return subprocess.run(
        [sys.executable, "-m", "celery", "-A", "worker.main", "call", "--queue", QUEUE, flow],
        cwd=release.code,
        env=release.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


def refused(log: Path) -> int:
    return log.read_text().count("this release has no such task")


def applied(operator: Operator) -> int:
    """How many events have had their effect, or had none left to have."""
    with operator.database.begin() as tx:
        found: int = tx.scalar(
            "SELECT count(*) FROM keyturn.inbox WHERE state IN ('done', 'stale')"
        )
        return found


def finished(operator: Operator) -> set[str]:
    with operator.database.begin() as tx:
        done = tx.execute(
            "SELECT job FROM keyturn.schedule_runs WHERE finished_at IS NOT NULL AND error IS NULL"
        )
        return set(done.scalars())


def verdict(operator: Operator, text: str) -> list[Any]:
    found = operator.verify(text)
    return [found.valid, found.reason]


def content(release: Release) -> dict[str, list[str]]:
    """Every row of the schema, as text."""
    with psycopg.connect(release.environment["KEYTURN_DATABASE_URL"]) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'keyturn' ORDER BY 1"
        ).fetchall()
        return {
            name: [
                str(row)
                for (row,) in connection.execute(
                    f"SELECT t::text FROM keyturn.{name} t ORDER BY 1"
                ).fetchall()
            ]
            for (name,) in tables
        }
