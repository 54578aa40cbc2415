"""Every entry of the audit is sealed, once, whoever commits when."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import ProgrammingError

from models import audit, audit_seal, audit_verify, migrations
from models.audit_verify import Verified
from models.base import Database
from models.errors import Refused
from tests.eventually import eventually
from tests.models.chain import POLICY, WRITE, Chain, opened


def test_where_nothing_was_written_nothing_is_sealed(chain: Chain) -> None:
    assert chain.seal() == 0
    assert chain.verify() == Verified(0, 0, None, 0, None, [])
    with pytest.raises(Refused, match="nothing of the audit is sealed yet") as refusal:
        chain.anchor()
    assert refusal.value.code == "nothing_sealed"


def test_each_entry_is_sealed_once_in_batches(chain: Chain) -> None:
    chain.write(*(f"action {n}" for n in range(7)))
    assert chain.verify().waiting == 7
    chain.seal_all()
    assert [(s["entries"], s["first_id"], s["last_id"]) for s in chain.seals()] == [
        (3, 1, 3),
        (3, 4, 6),
        (1, 7, 7),
    ]
    assert chain.seal() == 0
    chain.write("one more")
    chain.seal_all()
    found = chain.verify()
    assert (found.seals, found.entries, found.waiting, found.problems) == (4, 8, 0, [])


def test_the_entries_of_one_transaction_are_never_parted(chain: Chain) -> None:
    def write_ten(tx: Any) -> None:
        for number in range(10):
            audit.record(tx, "test", f"action {number}")

    chain.write("before")
    chain.database.run(write_ten)
    chain.write("after")
    chain.seal_all()
    assert [seal["entries"] for seal in chain.seals()] == [11, 1]


def test_an_entry_with_a_lower_id_that_commits_late_is_sealed_and_only_once(chain: Chain) -> None:
    """A range of row ids would have passed it over: row 2 is sealed before row 1 is there."""
    with (
        psycopg.connect(chain.url) as quick,
        psycopg.connect(chain.url) as slow,
    ):
        quick.execute("SELECT pg_current_xact_id()")
        assert slow.execute(WRITE, ["slow"]).fetchone() == (1,)
        assert quick.execute(WRITE, ["quick"]).fetchone() == (2,)
        quick.commit()
        eventually(lambda: chain.seal() == 1)
        assert [(s["first_id"], s["last_id"]) for s in chain.seals()] == [(2, 2)]
        assert chain.seal() == 0
        assert chain.verify().waiting == 0
        slow.commit()
    eventually(lambda: chain.seal() == 1)
    assert [(s["first_id"], s["last_id"]) for s in chain.seals()] == [(2, 2), (1, 1)]
    assert chain.problems() == []


def test_what_follows_a_running_transaction_waits_for_its_end(chain: Chain) -> None:
    """Otherwise its entries would come into a range that is sealed already."""
    with psycopg.connect(chain.url) as slow:
        slow.execute(WRITE, ["slow"])
        chain.write("quick")
        assert chain.seal() == 0
        assert chain.verify().waiting == 1
        slow.rollback()
    chain.seal_all()
    assert [(s["first_id"], s["last_id"]) for s in chain.seals()] == [(2, 2)]
    assert chain.problems() == []


def test_entries_that_wait_for_an_hour_are_an_alarm(chain: Chain) -> None:
    alarms: list[dict[str, object]] = []
    clock = datetime.now(UTC) + timedelta(minutes=59)
    database = Database(chain.url, clock=lambda: clock, on_alarm=alarms.append, pool_size=0)

    def wait() -> None:
        assert database.run(lambda tx: audit_seal.step(tx, POLICY)).finished

    with psycopg.connect(chain.url) as forgotten:
        forgotten.execute("SELECT pg_current_xact_id()")
        chain.write("waits")
        wait()
        assert alarms == []
        clock += timedelta(minutes=2)
        wait()
    [alarm] = alarms
    assert alarm["alarm"] == "audit_unsealed"
    assert isinstance(alarm["since"], datetime)
    chain.seal_all()
    wait()
    assert len(alarms) == 1


def test_writers_that_commit_in_any_order_and_two_that_seal_leave_no_gap(chain: Chain) -> None:
    done = threading.Event()

    def write(number: int) -> None:
        with psycopg.connect(chain.url) as connection:
            for turn in range(40):
                connection.execute(WRITE, [f"{number}/{turn}"])
                if (turn + number) % 3:
                    connection.execute("SELECT pg_sleep(0.002)")
                    connection.execute(WRITE, [f"{number}/{turn} again"])
                (connection.rollback if turn % 7 == 6 else connection.commit)()

    def seal() -> None:
        database = Database(chain.url, pool_size=1)
        while not done.is_set():
            database.run(lambda tx: audit_seal.step(tx, POLICY))
        database.close()

    with ThreadPoolExecutor(8) as pool:
        sealing = [pool.submit(seal) for _ in range(2)]
        for writing in [pool.submit(write, number) for number in range(6)]:
            writing.result()
        done.set()
        for one in sealing:
            one.result()
    seals_by_then = len(chain.seals())
    chain.seal_all()
    found = chain.verify()
    assert found.problems == []
    assert seals_by_then > 5
    [count] = chain.server.execute("SELECT count(*) FROM keyturn.audit").fetchone() or ()
    assert found.entries == sum(seal["entries"] for seal in chain.seals()) == count > 200


def test_entries_from_before_the_seals_are_sealed_too(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url, "0002")
    with opened(empty_database_url) as chain:
        chain.write("old", "older")
        migrations.upgrade(empty_database_url)
        chain.write("new")
        chain.seal_all()
        found = chain.verify()
        assert (found.entries, found.problems) == (3, [])


def test_who_seals_may_only_add_and_who_verifies_may_only_look(sealed: Chain) -> None:
    """What docs/audit.md promises needs no more rights than these."""
    rights = {"sealing": "SELECT, INSERT", "looking": "SELECT"}
    with ExitStack() as stack:
        for role, verbs in rights.items():
            sealed.server.execute(f"CREATE ROLE {role} LOGIN".encode())
            stack.callback(
                sealed.server.execute, f"DROP OWNED BY {role}; DROP ROLE {role}".encode()
            )
            sealed.server.execute(f"GRANT USAGE ON SCHEMA keyturn TO {role}".encode())
            tables = "keyturn.audit, keyturn.audit_seals"
            sealed.server.execute(f"GRANT {verbs} ON {tables} TO {role}".encode())
        sealing, looking = (
            Database(sealed.url.replace("//keyturn@", f"//{role}@"), pool_size=0) for role in rights
        )
        sealed.write("one more")
        eventually(lambda: sealing.run(lambda tx: audit_seal.step(tx, POLICY)).changed == 1)
        found = audit_verify.verify(looking, looking.run(audit_verify.anchor))
        assert (found.entries, found.waiting, found.problems) == (10, 0, [])
        with pytest.raises(ProgrammingError, match="permission denied"):
            sealing.run(lambda tx: tx.count("DELETE FROM keyturn.audit_seals"))
