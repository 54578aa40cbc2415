"""A process that is stuck ends itself."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from models.base import Database
from models.policy import Policy
from tasks import Runtime, flows, run, running
from tests.chaos.proxy import Mood, Proxy
from tests.eventually import eventually
from tests.flows.processes import environment, left_alone
from worker.embedded.postgres import PORT, Postgres
from worker.pulse import Pulse
from worker.schedule import TICK
from worker.watchdog import STUCK, Watchdog

NOW = timedelta(0)


@contextmanager
def busy(flow: str, allowed: float = 0.0) -> Iterator[None]:
    """A thread that does this for as long as the block lasts."""
    go, inside = threading.Event(), threading.Event()

    def hang() -> None:
        with running.noted(flow, allowed):
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    assert inside.wait(10)
    yield
    go.set()
    thread.join()


def test_a_stuck_run_ends_the_process() -> None:
    ended: list[int] = []
    watchdog = Watchdog(NOW, ended.append)
    watchdog.look()
    assert ended == []
    with busy("outbox.deliver"):
        longest = running.longest()
        assert longest is not None
        assert longest[0] == "outbox.deliver"
        watchdog.look()
    assert ended == [STUCK]
    assert running.longest() is None


def test_what_may_take_long_has_its_time() -> None:
    ended: list[int] = []
    with busy("account.event", allowed=60):
        Watchdog(NOW, ended.append).look()
    assert ended == []


class Silent(Database):
    """A database that does not answer; it notes what was under way when it was asked."""

    def __init__(self) -> None:
        super().__init__("postgresql://nobody@/nowhere")
        self.asked_during: list[str] = []

    def run(self, *_: object, **__: object) -> object:  # type: ignore[override]
        found = running.longest()
        self.asked_during.append(found[0] if found else "nothing")
        raise ConnectionError


def test_a_run_is_watched_from_its_first_word_to_the_database() -> None:
    database = Silent()
    with pytest.raises(ConnectionError):
        run(flows()[TICK], Runtime(database, Policy(), None, {}))  # type: ignore[arg-type]
    assert database.asked_during == [TICK]
    assert running.longest() is None


def test_the_pulse_is_watched_as_well() -> None:
    database = Silent()
    runtime = Runtime(database, Policy(), None, {})  # type: ignore[arg-type]
    with pytest.raises(ConnectionError):
        Pulse(lambda: runtime, timedelta(seconds=1)).beat()
    assert database.asked_during == ["pulse"]


_INTAKE = """
from datetime import timedelta
from worker.cli import main
from worker.intake import main as intake

intake.RING = timedelta(0)  # what the test would wait for beside four statements
main()
"""


@pytest.mark.parametrize(
    ("job", "command"),
    [
        ("intake.stream", ["-c", _INTAKE, "intake"]),
        (TICK, ["-m", "celery", "-A", "worker.main", "worker", "-P", "threads", "-c", "2"]),
    ],
    ids=["intake", "worker"],
)
def test_a_process_whose_database_falls_silent_ends(
    postgres: Postgres,
    database_url: str,
    broker_url: str,
    secrets_dir: Path,
    tmp_path: Path,
    job: str,
    command: list[str],
) -> None:
    """The connection stays open, and nobody answers any more: nothing on it ever fails."""
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    log = tmp_path / "log"

    def works() -> bool:
        with postgres.connect(str(name)) as connection:
            found = connection.execute(
                "SELECT FROM keyturn.schedule_runs WHERE job = %s AND finished_at IS NOT NULL",
                [job],
            )
            return found.rowcount > 0

    with Proxy(postgres.home.sockets / f".s.PGSQL.{PORT}").running() as proxy:
        url = f"postgresql://keyturn@127.0.0.1:{proxy.port}/{name}"
        env = environment(url, broker_url, secrets_dir)
        with left_alone(command, env, log) as process:
            eventually(works, within=60)
            proxy.set(Mood.BLACK_HOLE)
            assert process.wait(60) == STUCK, log.read_text()
    assert '"alarm": "worker_stuck"' in log.read_text()


@pytest.mark.skipif(
    not hasattr(socket, "TCP_USER_TIMEOUT"), reason="only Linux has all four of these"
)
def test_a_vanished_database_is_given_up_in_time(database_url: str, postgres: Postgres) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    with Proxy(postgres.home.sockets / f".s.PGSQL.{PORT}").running() as proxy:
        database = Database(f"postgresql://keyturn@127.0.0.1:{proxy.port}/{name}")
        with database.connect_autocommit() as connection:
            line = socket.socket(fileno=os.dup(connection.fileno()))
            with line:
                options = {
                    one: line.getsockopt(socket.IPPROTO_TCP, getattr(socket, one))
                    for one in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
                }
        database.close()
    assert options == {
        "TCP_KEEPIDLE": 10,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": 20_000,
    }
