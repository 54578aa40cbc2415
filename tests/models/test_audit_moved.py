"""A dump that is restored into another cluster, where transaction ids begin again lower."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from models import audit_seal
from models.policy import Policy
from tests.models.chain import Chain, opened, recomputed
from tests.servers import FAST, temporary_home
from worker.embedded.binaries import find_postgres
from worker.embedded.postgres import Postgres

Move = Callable[[Chain, Postgres], Chain]
ONE = Policy(seal_batch=1)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Postgres]:
    """Another cluster."""
    with temporary_home() as home:
        server = Postgres(home, options=FAST)
        server.start()
        yield server
        server.stop()


@pytest.fixture
def chain(database_url: str) -> Iterator[Chain]:
    with opened(database_url) as chain:
        yield chain


@pytest.fixture
def move() -> Iterator[Move]:
    """Dumps a database, restores it into a cluster as a new one, and opens that."""
    numbers = itertools.count(1)
    with ExitStack() as stack:

        def moved(chain: Chain, server: Postgres) -> Chain:
            name = f"moved_{next(numbers)}"
            with server.connect() as connection:
                connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())
                connection.execute(f"CREATE DATABASE {name}".encode())
            programs = find_postgres(server.home)
            dump = [programs.path("pg_dump"), "--schema=keyturn", chain.url]
            restore = [programs.path("psql"), "-qX", "-v", "ON_ERROR_STOP=1", server.url(name)]
            text = subprocess.run(dump, check=True, capture_output=True).stdout
            subprocess.run(restore, check=True, input=text, capture_output=True)
            return stack.enter_context(opened(server.url(name)))

        yield moved


def next_id(server: psycopg.Connection) -> int:
    row = server.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
    assert row is not None
    return int(row[0])


def spend(server: psycopg.Connection, until: int) -> None:
    """Let a cluster's transaction ids go on to `until`."""
    server.execute(
        b"CREATE OR REPLACE PROCEDURE public.spend(until bigint) LANGUAGE plpgsql AS $$ BEGIN "
        b"WHILE pg_current_xact_id()::text::bigint < until LOOP COMMIT; END LOOP; END $$"
    )
    server.execute("CALL public.spend(%s)", [until])
    server.execute(b"DROP PROCEDURE public.spend")


@pytest.fixture
def left(chain: Chain, elsewhere: Postgres) -> Chain:
    """Six entries, four of them sealed, of a cluster that is far ahead of the other one."""
    with elsewhere.connect() as other:
        spend(chain.server, next_id(other) + 500)
    chain.write("1", "2", "3", "4")
    chain.seal_all()
    chain.write("5", "6")
    assert chain.verify().waiting == 2
    return chain


def sealed_once(chain: Chain, entries: int) -> None:
    """Each entry is in one seal, and verifying finds nothing wrong."""
    found = chain.verify()
    assert (found.problems, found.entries, found.waiting) == ([], entries, 0)
    assert sum(seal["entries"] for seal in chain.seals()) == entries


def test_the_chain_goes_on_in_another_cluster(
    left: Chain, elsewhere: Postgres, move: Move, tmp_path: Path
) -> None:
    anchor = left.anchor()
    moved = move(left, elsewhere)
    assert next_id(moved.server) < next_id(left.server) - 100
    found = moved.verify(anchor)
    assert (found.problems, found.entries, found.waiting) == ([], 4, 2)
    moved.write("7", "8")
    found = moved.verify(anchor)
    assert (found.problems, found.entries, found.waiting) == ([], 4, 4)
    moved.seal_all()
    assert [(s["first_id"], s["last_id"]) for s in moved.seals()] == [
        (1, 3),
        (4, 4),
        (5, 6),
        (7, 8),
    ]
    sealed_once(moved, 8)
    moved.write("9")
    moved.seal_all()
    sealed_once(moved, 9)
    assert moved.problems(anchor) == []
    spend(moved.server, next_id(left.server) + 10)
    moved.write("10")
    moved.seal_all()
    sealed_once(moved, 10)
    assert recomputed(moved, tmp_path).returncode == 0
    moved.tamper("UPDATE keyturn.audit SET actor = 'somebody else' WHERE id IN (2, 6, 8)")
    assert moved.problems() == [("entry_changed", 1), ("entry_changed", 3), ("entry_changed", 4)]
    assert recomputed(moved, tmp_path).stdout.splitlines() == [
        f"seal {n}: other entries than were sealed" for n in (1, 3, 4)
    ]


def test_tampering_before_the_first_seal_there_is_found(
    left: Chain, elsewhere: Postgres, move: Move
) -> None:
    moved = move(left, elsewhere)
    moved.write("7")
    moved.tamper("DELETE FROM keyturn.audit WHERE id = 2")
    assert moved.problems() == [("entry_deleted", 1)]


def test_a_move_that_is_sealed_in_bits_while_ids_go_on_leaves_no_gap(
    left: Chain, elsewhere: Postgres, move: Move
) -> None:
    """The new cluster's ids pass those of the old one before its entries are all sealed."""
    left.write("7", "8")
    ahead = next_id(left.server) + 10
    moved = move(left, elsewhere)
    moved.write("9")
    assert moved.database.run(lambda tx: audit_seal.step(tx, ONE)).changed == 1
    spend(moved.server, ahead)
    assert moved.problems() == []
    moved.write("10")
    assert moved.database.run(lambda tx: audit_seal.step(tx, ONE)).changed == 1
    assert moved.problems() == []
    moved.seal_all()
    sealed_once(moved, 10)


def test_what_was_never_sealed_is_sealed_there(
    chain: Chain, elsewhere: Postgres, move: Move
) -> None:
    with elsewhere.connect() as other:
        spend(chain.server, next_id(other) + 500)
    chain.write("1", "2")
    moved = move(chain, elsewhere)
    moved.write("3")
    assert moved.verify().waiting == 3
    moved.seal_all()
    assert [(s["first_id"], s["last_id"]) for s in moved.seals()] == [(1, 2), (3, 3)]
    sealed_once(moved, 3)


def test_a_cluster_that_is_ahead_goes_on_as_well(
    left: Chain, elsewhere: Postgres, move: Move
) -> None:
    with elsewhere.connect() as other:
        spend(other, next_id(left.server) + 500)
    moved = move(left, elsewhere)
    moved.write("7")
    assert moved.problems() == []
    moved.seal_all()
    sealed_once(moved, 7)


def test_there_and_back_again(
    left: Chain, elsewhere: Postgres, postgres: Postgres, move: Move
) -> None:
    moved = move(left, elsewhere)
    moved.write("7")
    moved.seal_all()
    moved.write("8")
    back = move(moved, postgres)
    back.write("9")
    assert back.problems() == []
    back.seal_all()
    sealed_once(back, 9)
    assert back.problems(moved.anchor()) == []


def test_a_dump_in_the_same_cluster_is_no_move(left: Chain, postgres: Postgres, move: Move) -> None:
    copy = move(left, postgres)
    copy.write("7")
    copy.seal_all()
    sealed_once(copy, 7)
    assert [(s["first_id"], s["last_id"]) for s in copy.seals()][2:] == [(5, 7)]
