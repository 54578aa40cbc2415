"""A process that forks with everything open: neither it nor its child gets the other's answers."""

import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from models import TimeUnit, roles
from models.base import Database
from models.operator import Operator
from tests.eventually import eventually
from worker.settings import Settings

ADA = "ada@example.com"
QUESTIONS = 300
WITHIN = 20.0


@pytest.fixture
def operator(database_url: str) -> Iterator[Operator]:
    with Operator(database_url) as opened:
        opened.database.run(lambda tx: roles.sync(tx, Settings.model_construct().roles))
        opened.create_account(ADA, "member")
        yield opened


class Child:
    """A fork of this process that does `work` and ends, as a server's worker would."""

    def __init__(self, work: Callable[[], None]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                work()
                code = 0
            except BaseException:
                traceback.print_exc(file=sys.__stderr__)
            finally:
                os._exit(code)

    def ends_well(self) -> bool:
        """Whether it came to its end, and nothing failed in it."""
        ended: list[int] = []

        def gone() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            ended.append(status)
            return pid == self.pid

        try:
            eventually(gone, within=WITHIN)
        except AssertionError:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            return False
        return ended[-1] == 0


def ask(database: Database, who: str) -> None:
    """Many questions, each of whose answers says who asked."""
    for number in range(QUESTIONS):
        with database.begin() as tx:
            assert tx.scalar("SELECT CAST(:mine AS text)", mine=f"{who} {number}") == (
                f"{who} {number}"
            )


def open_two(database: Database) -> None:
    """Two connections in the pool: one for an open transaction, one that lies idle."""
    with database.begin() as one, database.begin() as other:
        assert one.scalar("SELECT 1") == other.scalar("SELECT 1")


def connections(database: Database) -> set[int]:
    """The server's processes that serve this database."""
    with database.begin() as tx:
        found = tx.rows("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    return {row["pid"] for row in found}


def test_a_child_asks_on_connections_of_its_own(operator: Operator) -> None:
    key = operator.create_api_key("a key", ADA, "member", 30, TimeUnit.DAY)
    text = key.text.reveal()

    def work() -> None:
        ask(operator.database, "the child")
        assert operator.verify(text).valid
        assert operator.create_api_key("of the child", ADA, "member", 30, TimeUnit.DAY)
        operator.close()

    open_two(operator.database)
    with operator.database.begin() as tx:
        mine = tx.scalar("SELECT pg_backend_pid()")
        child = Child(work)
        ask(operator.database, "the parent")
        for _ in range(QUESTIONS):
            assert tx.scalar("SELECT pg_backend_pid()") == mine
    assert child.ends_well()
    assert operator.verify(text).valid
    found = operator.keys()
    assert {one.name for one in found} == {"a key", "of the child"}


def test_a_child_that_only_closes_leaves_the_parents_connections_alone(operator: Operator) -> None:
    key = operator.create_api_key("a key", ADA, "member", 30, TimeUnit.DAY)
    assert operator.verify(key.text.reveal()).valid
    open_two(operator.database)
    before = connections(operator.database)
    with operator.database.begin() as tx:
        mine = tx.scalar("SELECT pg_backend_pid()")
        assert Child(operator.close).ends_well()
        assert tx.scalar("SELECT pg_backend_pid()") == mine
    assert operator.verify(key.text.reveal()).valid
    assert connections(operator.database) == before


def test_a_child_of_a_process_that_just_writes_uses_verifies(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that writes them is not there in the child, and what it held would stay held."""
    text = operator.create_api_key("a key", ADA, "member", 30, TimeUnit.DAY).text.reveal()
    other = operator.create_api_key("another", ADA, "member", 30, TimeUnit.DAY)
    writing, go_on = threading.Event(), threading.Event()
    begin = Database.begin

    def slow(database: Database) -> object:
        if threading.current_thread().name == "keyturn-uses":
            writing.set()
            go_on.wait(WITHIN)
        return begin(database)

    monkeypatch.setattr(Database, "begin", slow)

    def work() -> None:
        assert operator.verify(other.text.reveal()).valid
        operator.flush_uses()

    assert operator.verify(text).valid
    assert writing.wait(10)
    child = Child(work)
    try:
        assert child.ends_well()
    finally:
        go_on.set()
    operator.flush_uses()
    with operator.database.begin() as tx:
        assert tx.scalar("SELECT sum(uses) FROM keyturn.key_uses") == 2
