import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.eventually import eventually
from tests.servers import temporary_home
from worker.embedded import EmbeddedFailed
from worker.embedded.home import Home
from worker.embedded.valkey import HOST, Valkey


@pytest.fixture
def home() -> Iterator[Home]:
    with temporary_home() as home:
        yield home


@pytest.fixture
def server(home: Home) -> Iterator[Valkey]:
    server = Valkey(home)
    server.start()
    yield server
    server.stop()


def client(server: Valkey) -> redis.Redis:
    return redis.Redis.from_url(server.url(), decode_responses=True)


def identity_of(server: Valkey) -> int:
    assert server.running is not None
    return server.running.identity.pid


def test_it_is_set_up_to_lose_nothing(server: Valkey) -> None:
    with client(server) as valkey:
        settings = valkey.config_get("appendonly", "save", "maxmemory-policy", "bind")
    assert settings == {
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
        "bind": HOST,
    }


def test_nobody_gets_in_without_the_password(server: Valkey) -> None:
    with client(server) as valkey:
        port = valkey.connection_pool.connection_kwargs["port"]
        password = valkey.connection_pool.connection_kwargs["password"]
    for guess in (None, "guess"):
        stranger = redis.Redis(HOST, port, password=guess, retry=Retry(NoBackoff(), 0))
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()
    assert len(password) >= 32


def test_the_password_is_in_no_command_line_and_in_closed_files_only(
    server: Valkey, home: Home
) -> None:
    password = server.url().split("@")[0].removeprefix("redis://:")
    command_line = Path(f"/proc/{identity_of(server)}/cmdline").read_bytes()
    assert password.encode() not in command_line
    holders = [path for path in home.path.rglob("*") if path.is_file() and _has(path, password)]
    assert {path.name for path in holders} == {"broker.json", "valkey.conf"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}


def _has(path: Path, text: str) -> bool:
    return text.encode() in path.read_bytes()


def test_root_runs_it_as_somebody_else(server: Valkey, home: Home) -> None:
    owner = Path(f"/proc/{identity_of(server)}").stat().st_uid
    assert owner == (home.account.uid if home.account else os.geteuid())
    assert owner != 0


def test_data_and_address_are_kept_over_a_restart(server: Valkey) -> None:
    with client(server) as valkey:
        valkey.xadd("keyturn:in", {"type": "account.disabled"}, id="1-1")
    before = server.url()
    server.stop()
    assert not server.alive()
    server.start()
    assert server.url() == before
    with client(server) as valkey:
        assert valkey.xrange("keyturn:in") == [("1-1", {"type": "account.disabled"})]


def test_data_is_kept_when_it_is_killed(server: Valkey) -> None:
    with client(server) as valkey:
        valkey.set("key", "value")
        valkey.waitaof(1, 0, 5000)
    os.kill(identity_of(server), signal.SIGKILL)
    eventually(lambda: not server.alive())
    server.start()
    with client(server) as valkey:
        assert valkey.get("key") == "value"


def test_one_left_over_by_a_killed_supervisor_is_ended(server: Valkey, home: Home) -> None:
    left_over = identity_of(server)
    with client(server) as valkey:
        valkey.set("key", "value")
    successor = Valkey(home)  # as a new process would make it: knowing nothing of the first
    successor.start()
    assert server.running is not None
    assert server.running.popen.wait(5) == 0
    assert identity_of(successor) != left_over
    with client(successor) as valkey:
        assert valkey.get("key") == "value"
    successor.stop()


def test_two_never_run_on_one_directory(
    server: Valkey, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home.path / "pids" / "valkey.json").unlink()  # the trace of the first is lost
    monkeypatch.setattr("worker.embedded.valkey.LOCK_WITHIN", 0.1)
    with pytest.raises(EmbeddedFailed, match="another Valkey still runs"):
        Valkey(home).start()
    with client(server) as valkey:
        assert valkey.ping()


def test_a_port_that_was_taken_meanwhile_is_given_up(server: Valkey) -> None:
    before = server.url()
    server.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((HOST, int(before.rpartition(":")[2].removesuffix("/0"))))
        other.listen()
        server.start()
    assert server.url() != before
    with client(server) as valkey:
        assert valkey.ping()


def test_a_file_that_cannot_be_read_is_an_error_that_shows_the_log(home: Home) -> None:
    server = Valkey(home)
    server.start()
    with client(server) as valkey:
        valkey.set("key", "value")
    server.stop()
    for file in (home.path / "valkey" / "appendonlydir").glob("*.manifest"):
        file.write_text("nonsense\n")
    with pytest.raises(EmbeddedFailed, match=r"does not start(.|\n)*manifest") as caught:
        server.start()
    assert str(home.path) in str(caught.value)
    assert not (home.path / "pids" / "valkey.json").exists()


def test_the_address_is_not_known_before_the_start(home: Home) -> None:
    with pytest.raises(EmbeddedFailed, match="not started"):
        Valkey(home).url()
