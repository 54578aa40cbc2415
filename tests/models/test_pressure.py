"""More at once than there is room for: connections, creations, bad rows, sessions that lie idle."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from models import schedule_runs
from models.base import Database, is_server_trouble
from models.errors import Refused
from models.events import Action
from models.identity import new_id
from models.policy import Policy
from tests.world import World, event

DISABLED = Action.DISABLED


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    database = Database(database_url, pool_size=20)
    yield World(database)
    database.close()


def test_of_ten_thousand_creations_none_escapes_the_disabling_of_its_account(world: World) -> None:
    """A hundred accounts, four threads each that create while a fifth one disables."""
    emails = [f"user{number}@example.com" for number in range(100)]
    texts: list[str] = []
    refused: Counter[str] = Counter()

    def create(email: str, go: threading.Barrier) -> None:
        go.wait()
        for _ in range(25):
            try:
                texts.append(world.key(email)[1])
            except Refused as refusal:
                refused[refusal.code] += 1

    def disable(email: str, go: threading.Barrier) -> None:
        go.wait()
        time.sleep(0.02)  # so that some are made before
        world.receive(event(DISABLED, email))
        world.apply()

    for email in emails:
        world.account(email)
        go = threading.Barrier(5)
        threads = [threading.Thread(target=create, args=(email, go)) for _ in range(4)]
        threads.append(threading.Thread(target=disable, args=(email, go)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    world.settle()
    assert len(texts) + sum(refused.values()) == 10_000
    assert set(refused) <= {"account_held"}
    assert texts, "each account was disabled before anything was created: nothing was raced"
    with world.database.begin() as tx:
        assert tx.scalar("SELECT count(*) FROM keyturn.api_keys") == len(texts)
        assert tx.scalar("SELECT count(*) FROM keyturn.api_keys WHERE status <> 'disabled'") == 0
    assert not any(world.verify(text).valid for text in texts[:: max(len(texts) // 50, 1)])


def test_an_exhausted_pool_is_an_error_with_a_name_and_passes(database_url: str) -> None:
    database = Database(database_url, pool_size=2)
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(database.begin()).scalar("SELECT 1")
        began = time.monotonic()
        with pytest.raises(PoolTimeout) as error:
            database.run(lambda tx: tx.scalar("SELECT 1"))
        assert is_server_trouble(error.value)
        assert time.monotonic() - began < 10
    assert database.run(lambda tx: tx.scalar("SELECT 1")) == 1
    database.close()


def test_a_server_without_a_free_connection_is_an_error_with_a_name_and_passes(
    database_url: str,
) -> None:
    database = Database(database_url)
    with ExitStack() as idle:
        with suppress(psycopg.OperationalError):
            for _ in range(1000):
                idle.enter_context(psycopg.connect(database_url))
            pytest.fail("the server takes more than a thousand connections")
        with pytest.raises(DBAPIError) as error:
            database.run(lambda tx: tx.scalar("SELECT 1"))
        assert is_server_trouble(error.value)
    assert database.run(lambda tx: tx.scalar("SELECT 1")) == 1
    database.close()


@pytest.mark.parametrize(
    ("setting", "seconds"),
    [("statement_timeout", 15), ("lock_timeout", 3), ("idle_in_transaction_session_timeout", 30)],
)
def test_no_session_of_ours_holds_others_up_for_long(
    database_url: str, setting: str, seconds: int
) -> None:
    database = Database(database_url)
    with database.begin() as tx:
        found = tx.scalar("SELECT setting FROM pg_settings WHERE name = :name", name=setting)
    assert int(found) == seconds * 1000
    database.close()


_FAULT = """
CREATE FUNCTION keyturn.fault() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE 'a bug' USING ERRCODE = '22000'; END $$;
CREATE TRIGGER fault BEFORE INSERT ON keyturn.holds FOR EACH ROW
WHEN (NEW.account_id = '{poisoned}') EXECUTE FUNCTION keyturn.fault()
"""


def test_one_poisoned_event_among_ten_thousand_holds_no_other_up(world: World) -> None:
    """A fault of ours that one account sets off: its events wait, everybody else's are applied."""
    world.account("first@example.com")  # and with it the roles
    ids = [new_id() for _ in range(10_000)]
    rows = [{"id": str(one), "email": f"user{n}@example.com"} for n, one in enumerate(ids)]
    with world.database.begin() as tx:
        tx.execute(_ACCOUNTS, rows=json.dumps(rows))
    with psycopg.connect(world.database.engine.url.render_as_string(False).replace(
        "postgresql+psycopg", "postgresql"), autocommit=True) as owner:  # fmt: skip
        owner.execute(_FAULT.format(poisoned=ids[1234]).encode())
    for start in range(0, 10_000, 1000):
        world.receive(*(event(DISABLED, row["email"]) for row in rows[start : start + 1000]))
    done: Counter[str] = Counter()
    while applied := world.apply():
        done += applied
    assert done["done"] == 9_999
    assert set(done) == {"done", "failed"}
    with world.database.begin() as tx:
        [held] = tx.execute("SELECT count(*) FROM keyturn.accounts WHERE held").scalars()
        [left] = tx.rows("SELECT state, attempts FROM keyturn.inbox WHERE state <> 'done'")
    assert held == 9_999
    assert left["attempts"] == done["failed"]  # a slow machine comes to its next try as well


_ACCOUNTS = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, email text)
), made AS (
    INSERT INTO keyturn.accounts (id, email, role, created_at)
    SELECT id, email, 'member', :now - interval '1 day' FROM r RETURNING id
)
INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
SELECT gen_random_uuid(), id, 'email', '', email, :now - interval '1 day' FROM r
"""


SWITCHES = (datetime(2026, 10, 25, tzinfo=UTC), datetime(2027, 3, 28, tzinfo=UTC))
ZONES = (
    "Europe/Berlin", "Europe/London", "Atlantic/Azores", "Asia/Jerusalem", "Australia/Lord_Howe",
)  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda at: at.date().isoformat())
def test_each_slot_comes_once_where_clocks_are_put_back_or_forward(
    database_url: str, monkeypatch: pytest.MonkeyPatch, zone: str, switch: datetime
) -> None:
    """The machine, the server, the database and libpq's environment all have a zone of their own;
    a day before and a day after, in steps of a quarter of an hour."""
    name = str(psycopg.conninfo.conninfo_to_dict(database_url)["dbname"])
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"ALTER DATABASE {name} SET timezone = '{zone}'".encode())
    for variable in ("TZ", "PGTZ"):
        monkeypatch.setenv(variable, zone)
    time.tzset()
    now = [switch - timedelta(days=1)]
    database = Database(database_url, clock=lambda: now[0])
    rests = {"quarter": timedelta(minutes=15), "hour": timedelta(hours=1), "day": timedelta(days=1)}
    runs: Counter[str] = Counter()
    try:
        with database.begin() as tx, database.connect_autocommit() as own:
            assert tx.scalar("SHOW timezone") == "UTC"
            assert own.execute("SHOW timezone").fetchone() == ("UTC",)
        for _ in range(2 * 24 * 4):
            for job in database.run(lambda tx: schedule_runs.due(tx, rests)):
                database.run(lambda tx, job=job: schedule_runs.begin(  # type: ignore[misc]
                    tx, job, Policy(), exclusive=False))  # fmt: skip
                runs[job] += 1
            now[0] += timedelta(minutes=15)
    finally:
        database.close()
        monkeypatch.undo()
        time.tzset()
    assert runs == {"quarter": 192, "hour": 48, "day": 2}
