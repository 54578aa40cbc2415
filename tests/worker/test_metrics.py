"""The metrics say what is in the database, and a scrape fails where that does not answer."""

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from models import Client, schedule_runs
from models.base import Database
from models.events import Action
from models.keyring import Keyring
from models.sealing import Sealer
from models.status import Status, read
from tests.eventually import eventually
from tests.flows.processes import environment
from tests.servers import free_port
from tests.world import World, event
from worker.metrics import Metrics


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    made = World(Database(database_url))
    yield made
    made.database.close()


def status(world: World) -> Status:
    with world.database.begin() as tx:
        return read(tx)


def scraped(text: str) -> dict[tuple[str, str], float]:
    """Each sample by its name and the value of its label, as Prometheus reads them."""
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics(world: World) -> dict[tuple[str, str], float]:
    return scraped(Metrics(lambda: status(world)).text().decode())


def test_an_installation_at_rest_says_that_nothing_waits(world: World) -> None:
    found = metrics(world)
    assert found["keyturn_accounts_unsettled", ""] == 0
    assert found["keyturn_waiting_seconds", "event"] == 0
    assert ("keyturn_promises_broken", "") not in found  # nobody has looked yet


def test_what_waits_is_counted_and_its_age_told(world: World) -> None:
    world.account()
    world.key()
    world.receive(event(Action.DISABLED), event(Action.ENABLED, "nobody@example.com"))
    with world.database.begin() as tx:
        tx.execute("UPDATE keyturn.inbox SET received_at = now() - interval '90 seconds'")
    found = metrics(world)
    assert found["keyturn_events", "received"] == 2
    assert 90 <= found["keyturn_waiting_seconds", "event"] < 150
    world.apply()
    found = metrics(world)
    assert found["keyturn_events", "waiting_for_account"] == 1
    assert found["keyturn_waiting_seconds", "event"] == 0
    assert found["keyturn_accounts_unsettled", ""] == 1
    world.settle()
    found = metrics(world)
    assert found["keyturn_accounts_unsettled", ""] == 0
    assert found["keyturn_messages", "events"] > 0


def test_a_key_past_its_end_is_counted_until_the_sweep(world: World) -> None:
    world.account()
    key, _ = world.key(validity=timedelta(seconds=60))
    with world.database.begin() as tx:
        tx.execute(
            "UPDATE keyturn.api_keys SET created_at = now() - interval '2 hours',"
            " expires_at = now() - interval '1 hour' WHERE id = :id",
            id=key,
        )
    found = metrics(world)
    assert found["keyturn_keys_past_end", ""] == 1
    assert found["keyturn_waiting_seconds", "key"] >= 3600


def test_jobs_tell_when_they_ended_whether_they_failed_and_what_the_check_found(
    world: World,
) -> None:
    for job, done, error in (("upkeep.check_invariants", 2, None), ("keys.settle", 0, "Boom")):
        with world.database.begin() as tx:
            fence = schedule_runs.begin(tx, job, world.policy, exclusive=True)
            assert fence is not None
            schedule_runs.finish(tx, job, fence, done=done, error=error)
    found = metrics(world)
    assert found["keyturn_promises_broken", ""] == 2
    assert found["keyturn_job_failed", "keys.settle"] == 1
    assert found["keyturn_job_failed", "upkeep.check_invariants"] == 0
    assert found["keyturn_job_finished_timestamp_seconds", "keys.settle"] > 1.7e9


def test_a_scrape_fails_where_the_database_does_not_answer() -> None:
    unreachable = Database("postgresql+psycopg://nobody@127.0.0.1:1/none", pool_size=0)

    def ask() -> Status:
        with unreachable.begin() as tx:
            return read(tx)

    with Metrics(ask).served("127.0.0.1", 0) as port:
        with pytest.raises(urllib.error.HTTPError) as failed:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10)
        assert failed.value.code == 500


def test_one_process_serves_them_until_it_is_told_to_end(
    database_url: str, broker_url: str, secrets_dir: Path
) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}/metrics"

    def scrape() -> str:
        with urllib.request.urlopen(url, timeout=10) as answer:
            said: bytes = answer.read()
        return said.decode()

    serving = subprocess.Popen(
        [sys.executable, "-m", "worker.cli", "metrics", "--listen", f"127.0.0.1:{port}"],
        env=environment(database_url, broker_url, secrets_dir),
        stdout=subprocess.DEVNULL,
    )
    try:
        text = eventually(scrape)
        assert ("keyturn_accounts_unsettled", "") in scraped(text)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(10) == 0
    finally:
        serving.kill()
        serving.wait()


def test_a_rotation_of_whose_keys_no_use_is_reported_is_counted_after_a_day(world: World) -> None:
    world.account()
    key, text = world.key()
    keyring = Keyring(world.peppers, Sealer({1: b"k" * 32}))
    url = world.database.engine.url.render_as_string(hide_password=False)
    name = ("keyturn_rotations_uses_never_reported", "")
    with Client(url, keyring=lambda: keyring) as client:
        client.rotate(key)
        assert metrics(world)[name] == 0
        with world.database.begin() as tx:
            tx.execute("UPDATE keyturn.rotations SET issued_at = now() - interval '25 hours'")
        assert metrics(world)[name] == 1
        assert client.verify(text)
        client.flush_uses()
        assert metrics(world)[name] == 0
