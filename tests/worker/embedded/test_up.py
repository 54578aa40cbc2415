"""`keyturn up` as a process: everything is real, and observed from outside."""

import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import pytest
import redis

from tests.eventually import eventually
from worker.embedded import Embedded, running
from worker.embedded.account import Account
from worker.embedded.home import PROJECT
from worker.embedded.postgres import Postgres
from worker.embedded.process import Identity, PidFile
from worker.embedded.valkey import Valkey

CHILDREN: Final = ("worker", "beat", "intake")
EVERYTHING: Final = (*CHILDREN, "valkey", "postgres")
READY_WITHIN: Final = 60.0  # seconds; a first start alone on two cores needs 3 to 6
STOPPED_WITHIN: Final = 10.0  # seconds, as promised


class Up:
    """One running `keyturn up`."""

    def __init__(self, data: Path, popen: subprocess.Popen[str], output: Path) -> None:
        self.data = data
        self.popen = popen
        self._output = output

    def output(self) -> str:
        return self._output.read_text()

    def forget(self) -> None:
        self._output.unlink()

    def wait_until_ready(self) -> None:
        eventually(lambda: self._ready() or self.popen.poll() is not None, within=READY_WITHIN)
        assert self.popen.poll() is None, self.output()

    def _ready(self) -> bool:
        lines = self.output().splitlines()
        return "Keyturn is ready" in lines and "Ctrl-C stops everything." in lines

    def process(self, name: str) -> Identity:
        identity = PidFile(self.data / "pids" / f"{name}.json").read()
        assert identity is not None, f"{name} does not run"
        return identity

    def embedded(self) -> Embedded:
        found = running(self.data)
        assert found is not None
        return found

    def stop(self, number: signal.Signals = signal.SIGINT) -> float:
        """Signal it; returns the seconds until its end."""
        asked = time.monotonic()
        self.popen.send_signal(number)
        assert self.popen.wait(30) == 0, self.output()
        return time.monotonic() - asked


def start(
    data: Path,
    *,
    python: str = sys.executable,
    env: Mapping[str, str] | None = None,
    **how: Any,
) -> Up:
    output = Path(tempfile.mkstemp(prefix="keyturn-test-output-")[1])
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}
    with output.open("w") as file:
        popen = subprocess.Popen(
            [python, "-m", "worker.cli", "up"],
            cwd=PROJECT,
            env={**clean, "KEYTURN_DATA_DIR": str(data), **(env or {})},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
            **how,
        )
    return Up(data, popen, output)


@contextmanager
def data_directory() -> Iterator[Path]:
    """A directory that the servers' account may enter, and that no process outlives."""
    data = Path(tempfile.mkdtemp(prefix="keyturn-test-"))
    data.chmod(0o711)
    try:
        yield data
    finally:
        for name in EVERYTHING:
            leftover = PidFile(data / "pids" / f"{name}.json").read()
            if leftover:
                os.kill(leftover.pid, signal.SIGKILL)
        shutil.rmtree(data)


@contextmanager
def several() -> Iterator[Callable[..., Up]]:
    """Starts `keyturn up` on one directory, as often as a test asks."""
    started: list[Up] = []

    def begin(**how: Any) -> Up:
        started.append(start(data, **how))
        return started[-1]

    with data_directory() as data:
        yield begin
        for up in started:
            up.popen.kill()
            up.popen.wait()
            up.forget()


@pytest.fixture
def starts() -> Iterator[Callable[..., Up]]:
    with several() as begin:
        yield begin


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """One that is ready, for tests that leave it so."""
    with several() as begin:
        up = begin()
        up.wait_until_ready()
        yield up


def ends_in_order(up: Up) -> list[str]:
    """Stop it, and say which of its processes ended in which order."""
    left = {name: up.process(name) for name in EVERYTHING}
    order: list[str] = []
    up.popen.send_signal(signal.SIGINT)

    def all_ended() -> bool:
        gone = [name for name in left if not left[name].alive()]
        order.extend(gone)
        for name in gone:
            del left[name]
        return not left

    eventually(all_ended, within=STOPPED_WITHIN, every=0.002)
    assert up.popen.wait(STOPPED_WITHIN) == 0
    return order


def try_out(up: Up) -> str:
    """Run the lines that it shows, as they stand; returns what the last one says."""
    program = "keyturn"
    said = ""
    lines = [line for line in up.output().splitlines() if line.startswith("  $ ")]
    assert len(lines) == 4
    for line in lines:
        typed = shlex.split(line.removeprefix("  $ "))
        assert typed[0].endswith(f"/{program}")
        command = [sys.executable, "-m", "worker.cli", *typed[1:]]
        env = {**os.environ, "KEYTURN_DATA_DIR": str(up.data)}
        said = subprocess.run(
            command, cwd=PROJECT, env=env, check=True, capture_output=True, text=True
        ).stdout
    return said


def test_the_first_start_the_lines_to_try_and_the_second_start(starts: Callable[..., Up]) -> None:
    up = starts()
    up.wait_until_ready()
    assert str(up.data) in up.output()
    assert "first" in try_out(up)
    before = up.embedded()
    order = ends_in_order(up)
    assert set(order[:3]) == set(CHILDREN)
    assert order[3:] == ["valkey", "postgres"]
    assert running(up.data) is None

    again = starts()
    again.wait_until_ready()
    assert again.embedded() == before
    with psycopg.connect(before.database_url) as connection:
        kept = connection.execute("SELECT count(*) FROM keyturn.api_keys").fetchone()
    assert kept == (1,)
    assert again.stop(signal.SIGTERM) < STOPPED_WITHIN


def test_the_database_knows_where_its_secrets_are(up: Up) -> None:
    with psycopg.connect(up.embedded().database_url) as connection:
        shown = connection.execute("SHOW keyturn.secrets_dir").fetchone()
    assert shown == (str(up.data / "secrets"),)
    assert up.embedded().secrets_dir == up.data / "secrets"


def test_the_line_for_redis_clients_works_and_shows_no_password(up: Up, tmp_path: Path) -> None:
    url = up.embedded().broker_url
    assert str(urlsplit(url).password) not in up.output()
    [line] = [line for line in up.output().splitlines() if "redis-cli" in line]
    client = tmp_path / "redis-cli"
    client.write_text(REDIS_CLI)
    client.chmod(0o755)
    typed = line.strip().removesuffix(")")
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with psycopg.connect(up.embedded().database_url, autocommit=True) as connection:
        before = connection.execute(ARRIVED).fetchall()
        subprocess.run(["sh", "-c", typed], cwd=PROJECT, env=env, check=True)
        eventually(lambda: len(connection.execute(ARRIVED).fetchall()) > len(before))


ARRIVED = """
    SELECT id FROM keyturn.inbox
    WHERE action = 'disabled' AND subject_value = ARRAY['ada@example.com']
"""
REDIS_CLI = f"""#!{sys.executable}
import os, sys
import redis
assert sys.argv[1::2][:3] == ["-h", "-p", "-n"], sys.argv
host, port, number = sys.argv[2:8:2]
client = redis.Redis(host, int(port), int(number), password=os.environ["REDISCLI_AUTH"])
client.execute_command(*sys.argv[7:])
"""
"""What the program of that name does with these arguments."""


def test_a_second_one_on_the_same_data_is_refused(up: Up) -> None:
    second = start(up.data)
    assert second.popen.wait(30) == 1
    assert f"already runs on {up.data} (process {up.popen.pid})" in second.output()
    second.forget()
    assert all(up.process(name).alive() for name in EVERYTHING)


def test_a_child_that_dies_is_started_again(up: Up) -> None:
    killed = up.process("worker")
    os.kill(killed.pid, signal.SIGKILL)
    eventually(lambda: up.process("worker") != killed)
    assert "worker ended (signal 9: Killed) and starts again in" in up.output()


def test_servers_that_die_come_back_at_the_same_address(up: Up) -> None:
    before = up.embedded()
    killed = {name: up.process(name) for name in ("valkey", "postgres")}
    for server in killed.values():
        os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: all(up.process(n) != server for n, server in killed.items()))
    eventually(lambda: psycopg.connect(before.database_url)).close()
    with redis.Redis.from_url(before.broker_url) as client:
        eventually(client.ping)
    # Commands in another terminal find them as before.
    eventually(lambda: running(up.data) == before)
    assert up.popen.poll() is None


def test_what_a_killed_one_leaves_behind_is_replaced(starts: Callable[..., Up]) -> None:
    first = starts()
    first.wait_until_ready()
    orphans = {name: first.process(name) for name in EVERYTHING}
    first.popen.kill()
    first.popen.wait()
    assert all(orphan.alive() for orphan in orphans.values())
    second = starts()
    second.wait_until_ready()
    assert not any(orphan.alive() for orphan in orphans.values())
    assert all(second.process(name).alive() for name in EVERYTHING)


def test_told_to_stop_before_it_is_ready_it_stops(starts: Callable[..., Up]) -> None:
    up = starts()
    eventually(lambda: up.process("postgres"), within=READY_WITHIN)
    assert up.stop() < STOPPED_WITHIN
    assert running(up.data) is None
    assert "Keyturn is ready" not in up.output()


def test_servers_of_your_own_are_used_and_none_is_started(
    starts: Callable[..., Up], empty_database_url: str, broker_url: str
) -> None:
    given = {"KEYTURN_DATABASE_URL": empty_database_url, "KEYTURN_BROKER_URL": broker_url}
    up = starts(env=given)
    up.wait_until_ready()
    assert {path.stem for path in (up.data / "pids").iterdir()} == set(CHILDREN)
    assert (up.embedded().database_url, up.embedded().broker_url) == (
        empty_database_url,
        broker_url,
    )
    assert up.stop() < STOPPED_WITHIN


def test_a_wrong_setting_is_said_and_nothing_starts(starts: Callable[..., Up]) -> None:
    up = starts(env={"KEYTURN_DATABASE_URL": "mysql://elsewhere"})
    assert up.popen.wait(30) != 0
    assert "KEYTURN_DATABASE_URL" in up.output()
    assert list(up.data.iterdir()) == []


@contextmanager
def python_for(account: Account) -> Iterator[tuple[str, dict[str, str]]]:
    """A Python that `account` reaches: ours, or a copy where ours lies in a private home.

    Comes with the variables that it needs.
    """
    if account.reaches(Path(sys.executable)):
        yield sys.executable, {}
        return
    base = Path(sys.base_prefix)
    library = Path(sysconfig.get_path("stdlib"))
    with tempfile.TemporaryDirectory(prefix="keyturn-test-") as directory:
        copy = Path(directory)
        copy.chmod(0o755)
        (copy / "bin").mkdir()
        program = shutil.copy(os.path.realpath(sys.executable), copy / "bin")
        for shared in base.glob("lib/libpython*.so*"):
            (copy / "lib").mkdir(exist_ok=True)
            shutil.copy(shared, copy / "lib")
        heavy = shutil.ignore_patterns("test", "site-packages", "idlelib", "__pycache__", "*.a")
        shutil.copytree(library, copy / library.relative_to(base), ignore=heavy)
        yield str(program), {"LD_LIBRARY_PATH": str(copy / "lib")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_an_ordinary_user_runs_everything_as_itself() -> None:
    entry = pwd.getpwnam("nobody")
    nobody = Account("nobody", entry.pw_uid, entry.pw_gid)
    packages = Path(pytest.__file__).parents[1]
    if not nobody.reaches(PROJECT) or not nobody.reaches(packages):
        pytest.skip("this project lies in a private home")
    with data_directory() as data, python_for(nobody) as (python, variables):
        os.chown(data, nobody.uid, nobody.gid)
        env = {"PYTHONPATH": str(packages), "HOME": "/nonexistent", **variables}
        up = start(data, python=python, env=env, **nobody.arguments())
        try:
            up.wait_until_ready()
            owners = {Path(f"/proc/{up.process(n).pid}").stat().st_uid for n in EVERYTHING}
            assert owners == {nobody.uid}
            assert {path.stat().st_uid for path in data.rglob("*")} == {nobody.uid}
            assert up.stop() < STOPPED_WITHIN
        finally:
            up.popen.kill()
            up.popen.wait()
            up.forget()


def test_the_servers_of_the_tests_are_not_those_of_the_project(
    postgres: Postgres, valkey: Valkey
) -> None:
    """What tests empty and drop must never be what somebody runs beside them."""
    assert not postgres.home.path.is_relative_to(PROJECT)
    assert postgres.home == valkey.home
