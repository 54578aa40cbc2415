"""Real servers for a run of the tests: in a directory of their own, unprivileged, disposable."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import pytest

from tests.eventually import eventually
from worker.embedded.account import server_account
from worker.embedded.home import Home
from worker.embedded.process import PidFile, Running, spawn

FAST: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Options for a PostgreSQL whose data nobody will miss."""

_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 4 << 30  # bytes; the servers of a run fill some hundred MB
_RABBITMQ: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def need(server: str, available: bool, mend: str) -> None:
    """Skip the test where `server` cannot be had; in CI (CI=true) fail: nothing goes untested."""
    if not available:
        _missing(f"needs {server}: {mend}")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def temporary_home() -> Iterator[Home]:
    """A data directory that the servers' account reaches; pytest's own are closed to others.

    It lies in memory where that can be had, unless TMPDIR says where: thousands of databases come
    and go, and ext4 looks for an inode longer the more were freed in the last seconds.
    """
    path = Path(tempfile.mkdtemp(prefix="keyturn-test-", dir=_memory()))
    path.chmod(0o711)
    try:
        yield Home(path, server_account())
    finally:
        shutil.rmtree(path)


def _memory() -> Path | None:
    """A file system in memory, with room and free to run programs from; None where there is none.

    What the servers' account cannot reach of their programs is copied to their home.
    """
    if "TMPDIR" in os.environ or not os.access(_MEMORY, os.W_OK | os.X_OK):
        return None
    found = os.statvfs(_MEMORY)
    usable = not found.f_flag & os.ST_NOEXEC and found.f_bavail * found.f_frsize >= _ROOM
    return _MEMORY if usable else None


@contextmanager
def rabbitmq(home: Home, configuration: str = "") -> Iterator[str]:
    """Debian's RabbitMQ on ports of its own; yields its URL. Starts in 5 to 11 seconds.

    `configuration` are more lines of its rabbitmq.conf.
    """
    need("RabbitMQ", _RABBITMQ.exists(), "apt-get install rabbitmq-server")
    port, distribution, mapper = free_port(), free_port(), free_port()
    directory = home.own_directory("rabbitmq")
    (directory / "plugins").write_text("[].\n")
    (directory / "rabbitmq.conf").write_text(f"listeners.tcp.1 = 127.0.0.1:{port}\n{configuration}")
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(directory),  # where Erlang keeps its cookie
        "LANG": "C.UTF-8",
        "ERL_EPMD_PORT": str(mapper),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"keyturn{secrets.token_hex(4)}@localhost",
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_MNESIA_BASE": str(directory / "mnesia"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_PID_FILE": str(directory / "pid"),
    }
    log = home.own_directory("log")
    # Erlang would start its port mapper as a daemon that nobody ends: it is a child of ours too.
    epmd = spawn(
        ["epmd", "-address", "127.0.0.1", "-port", str(mapper)],
        pid_file=PidFile(home.own_directory("pids") / "epmd.json"),
        log=log / "epmd.log",
        env=env,
    )
    server = spawn(
        [str(_RABBITMQ)],
        pid_file=PidFile(home.own_directory("pids") / "rabbitmq.json"),
        log=log / "rabbitmq.log",
        env=env,
    )
    try:
        eventually(lambda: _listens(server, port), within=60)
        yield f"amqp://guest:guest@127.0.0.1:{port}//"
    finally:
        _end_session(server)
        _end_session(epmd)


def free_port() -> int:
    """A TCP port of loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _listens(server: Running, port: int) -> bool:
    if not server.alive():
        pytest.fail(f"RabbitMQ ended: {server.last_words()}")
    with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
        client.sendall(b"AMQP\x00\x00\x09\x01")
        return bool(client.recv(8))


def _end_session(process: Running) -> None:
    """End a server that was started through shell scripts, which pass no signal on."""
    try:
        os.killpg(process.identity.pid, signal.SIGTERM)
        process.popen.wait(10)
    except ProcessLookupError:
        pass
    except subprocess.TimeoutExpired:
        os.killpg(process.identity.pid, signal.SIGKILL)
    process.popen.wait()
