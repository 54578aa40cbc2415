"""A Valkey of our own: on loopback, with a password, its appended file kept over restarts."""

import fcntl
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .binaries import find_valkey
from .home import Home
from .process import EmbeddedFailed, Patience, PidFile, Running, end_recorded, spawn, write_private

HOST: Final = "127.0.0.1"
START_WITHIN: Final = 60.0  # seconds: a long file takes its time to load
STOP: Final[Patience] = ((signal.SIGTERM, 3.0), (signal.SIGKILL, 1.0))
LOCK_WITHIN: Final = 5.0  # seconds: a child that rewrites the file outlives the server a little
_OPTIONS: Final = ("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction")
_PORT_TAKEN: Final = "Address already in use"


@dataclass(frozen=True)
class _Address:
    port: int
    password: str


class Valkey:
    """One server with its data in `home`; `start` and `stop` may be repeated."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.running: Running | None = None
        self._address: _Address | None = None

    def url(self, number: int = 0) -> str:
        """The address of a numbered database, password included; known once it was started."""
        if self._address is None:
            raise EmbeddedFailed("Valkey was not started: its port is not known yet")
        return f"redis://:{self._address.password}@{HOST}:{self._address.port}/{number}"

    def start(self) -> None:
        """Run the server, on the port of the last time where that is free.

        Ends one that an earlier start left over. Raises Misconfigured or EmbeddedFailed.
        """
        pid_file = PidFile(self.home.own_directory("pids") / "valkey.json")
        end_recorded([pid_file], STOP)
        self.home.server_directory(self.home.path / "valkey")
        for _ in range(3):  # between finding a free port and taking it somebody else may take it
            self._address = self._choose_address()
            self.running = self._spawn(self._address, pid_file)
            if self._answers(self.running):
                return
            words = self.running.last_words()
            self.stop()
            if _PORT_TAKEN not in words:
                break
        raise EmbeddedFailed(
            f"Valkey does not start in {self.home.path}; the end of its log:\n{words}"
        )

    def alive(self) -> bool:
        return self.running is not None and self.running.alive()

    def stop(self) -> None:
        """End the server in at most four seconds; what it had acknowledged is on disk."""
        if self.running:
            self.running.stop(STOP)
            self.running = None

    def _choose_address(self) -> _Address:
        file = self.home.path / "broker.json"
        try:
            last = _Address(**json.loads(file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            last = _Address(0, secrets.token_urlsafe(24))
        address = _Address(_free_port(last.port), last.password)
        write_private(file, json.dumps(asdict(address)))
        return address

    def _spawn(self, address: _Address, pid_file: PidFile) -> Running:
        with self._only_one() as lock:
            return spawn(
                [str(find_valkey(self.home)), str(self._write_configuration(address)), *_OPTIONS],
                pid_file=pid_file,
                log=self.home.own_directory("log") / "valkey.log",
                account=self.home.account,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
                cwd=self.home.path / "valkey",
                keep=[lock],
            )

    def _write_configuration(self, address: _Address) -> Path:
        """The password goes by a file: every user of the machine sees command lines."""
        file = self.home.path / "valkey" / "valkey.conf"
        write_private(
            file,
            f"bind {HOST}\nport {address.port}\nrequirepass {address.password}\n"
            "daemonize no\nprotected-mode yes\n",
        )
        if self.home.account:
            os.chown(file, self.home.account.uid, self.home.account.gid, follow_symlinks=False)
        return file

    @contextmanager
    def _only_one(self) -> Iterator[int]:
        """A lock that the server holds for its life: two of them would spoil one file."""
        with (self.home.path / "valkey.lock").open("a") as file:
            deadline = time.monotonic() + LOCK_WITHIN
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise EmbeddedFailed(
                            f"another Valkey still runs on the data in {self.home.path}: end it "
                            "(`ps -ef` shows it as valkey-server) and start again"
                        ) from None
                time.sleep(0.02)
            yield file.fileno()

    def _answers(self, running: Running) -> bool:
        deadline = time.monotonic() + START_WITHIN
        client = redis.Redis.from_url(self.url(), socket_timeout=2, retry=Retry(NoBackoff(), 0))
        with client:
            while running.alive() and time.monotonic() < deadline:
                try:
                    return bool(client.ping())
                except redis.RedisError:
                    time.sleep(0.02)
        return False


def _free_port(wanted: int) -> int:
    """`wanted` if it is free, else one that is; 0 wants any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise EmbeddedFailed(f"no port is free on {HOST}")
