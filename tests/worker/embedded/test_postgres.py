import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine, text

from models.errors import Misconfigured
from tests.eventually import eventually
from tests.servers import FAST, temporary_home
from worker.embedded import EmbeddedFailed
from worker.embedded.home import Home
from worker.embedded.postgres import Postgres


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as home:
        yield home


@pytest.fixture
def server(home: Home) -> Iterator[Postgres]:
    server = Postgres(home, options=FAST)
    server.start()
    yield server
    server.stop()


def identity_of(server: Postgres) -> int:
    assert server.running is not None
    return server.running.identity.pid


def ask(server: Postgres, question: str) -> object:
    with psycopg.connect(server.url()) as connection:
        row = connection.execute(question).fetchone()
        assert row is not None
        return row[0]


def test_its_url_serves_sqlalchemy_and_libpq(server: Postgres) -> None:
    engine = create_engine(server.url())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_database()")).scalar() == "keyturn"
    engine.dispose()
    assert ask(server, "SELECT current_user") == "keyturn"


def test_no_tcp_port_is_open_and_the_socket_is_in_a_closed_directory(server: Postgres) -> None:
    assert ask(server, "SHOW listen_addresses") == ""
    assert server.home.sockets.stat().st_mode & 0o777 == 0o700
    assert (server.home.sockets / ".s.PGSQL.5432").is_socket()


def test_text_is_unicode_and_times_are_utc(server: Postgres) -> None:
    assert ask(server, "SHOW server_encoding") == "UTF8"
    assert ask(server, "SHOW timezone") == "UTC"


def test_root_runs_it_as_somebody_else_in_a_session_of_its_own(server: Postgres) -> None:
    owner = Path(f"/proc/{identity_of(server)}").stat().st_uid
    account = server.home.account
    assert owner == (account.uid if account else os.geteuid())
    assert owner != 0
    assert os.getsid(identity_of(server)) == identity_of(server)


def test_the_environment_of_the_caller_leads_nowhere_else(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"PGPORT": "1", "PGDATA": "/nowhere", "PGHOST": "nowhere"}.items():
        monkeypatch.setenv(name, value)
    server = Postgres(home, options=FAST)
    server.start()
    assert ask(server, "SELECT 1") == 1
    server.stop()


def test_data_is_kept_over_a_restart(server: Postgres) -> None:
    with server.connect("keyturn") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    server.stop()
    assert not server.alive()
    assert not (server.data / "postmaster.pid").exists()
    server.start()
    assert ask(server, "SELECT number FROM kept") == 7


def test_it_stops_at_once_under_open_transactions(server: Postgres) -> None:
    with psycopg.connect(server.url()) as connection:
        connection.execute("SELECT 1")
        postmaster = server.running
        assert postmaster is not None
        server.stop()
        assert postmaster.popen.returncode == 0  # by SIGINT, not by the harder signals after it
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_data_is_kept_when_it_is_killed(home: Home) -> None:
    server = Postgres(home)  # with fsync, as `keyturn up` has it
    server.start()
    with server.connect("keyturn") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    os.kill(identity_of(server), signal.SIGKILL)
    eventually(lambda: not server.alive())
    server.start()
    assert ask(server, "SELECT number FROM kept") == 7
    server.stop()


def test_one_left_over_by_a_killed_supervisor_is_ended(server: Postgres) -> None:
    with server.connect("keyturn") as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
    successor = Postgres(server.home, options=FAST)  # as a new process would make it
    successor.start()
    assert server.running is not None
    assert server.running.popen.wait(5) == 0
    assert identity_of(successor) != identity_of(server)
    assert ask(successor, "SELECT number FROM kept") == 7
    successor.stop()


def test_one_without_a_trace_is_not_run_over(server: Postgres) -> None:
    (server.home.path / "pids" / "postgres.json").unlink()
    with pytest.raises(EmbeddedFailed, match=r"postmaster\.pid.*already exists"):
        Postgres(server.home, options=FAST).start()
    assert ask(server, "SELECT 1") == 1


def test_an_initialisation_that_was_cut_off_is_done_again(home: Home) -> None:
    half = home.path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = Postgres(home, options=FAST)
    server.start()
    assert ask(server, "SELECT 1") == 1
    assert not half.exists()
    server.stop()


def test_data_of_another_version_is_refused_untouched(server: Postgres) -> None:
    server.stop()
    (server.data / "PG_VERSION").write_text("14\n")
    with pytest.raises(Misconfigured, match=r"PostgreSQL 14's.*set KEYTURN_PG_BIN"):
        server.start()


def test_a_server_that_does_not_start_shows_its_log(home: Home) -> None:
    server = Postgres(home, options={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedFailed, match=r"does not start(.|\n)*shared_buffers.*nonsense"):
        server.start()
    assert not (home.path / "pids" / "postgres.json").exists()


def test_a_setting_for_the_database_reaches_new_sessions(server: Postgres) -> None:
    server.set_for_database("keyturn.secrets_dir", "/a path/with 'quotes'")
    assert ask(server, "SHOW keyturn.secrets_dir") == "/a path/with 'quotes'"


def test_a_directory_with_a_long_name_and_odd_signs(home: Home) -> None:
    deep = Home(home.path / ("long, " * 15), home.account)
    deep.make()
    server = Postgres(deep, options=FAST)
    server.start()
    assert ask(server, "SELECT 1") == 1
    server.stop()
    deep.sockets.rmdir()
