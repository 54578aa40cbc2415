"""Keyturn as it really runs: `keyturn up` in a directory of its own, with second-sized settings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any, Final

import psycopg
import redis

from models.operator import Operator
from tests.eventually import eventually
from worker.embedded import Embedded, running
from worker.embedded.process import PidFile

ROOT: Final = Path(__file__).resolve().parents[2]
SECONDS: Final[dict[str, str]] = {
    "KEYTURN_STATEMENT_TIMEOUT": "2s",
    "KEYTURN_LEASE": "3s",
    "KEYTURN_VISIBILITY_TIMEOUT": "10s",
    "KEYTURN_APPLY_EVERY": "1s",
    "KEYTURN_SETTLE_EVERY": "1s",
    "KEYTURN_EXPIRE_EVERY": "1s",
    "KEYTURN_NOTICES_EVERY": "1s",
    "KEYTURN_ROTATIONS_EVERY": "1s",
    "KEYTURN_DELIVER_EVERY": "1s",
    "KEYTURN_DELETE_EVERY": "1s",
    "KEYTURN_USE_INTERVAL": "1s",
    "KEYTURN_NOTICE_THRESHOLDS": "30s",
    "KEYTURN_ROTATION_OVERLAP": "15s",
    "KEYTURN_ROTATION_QUIET": "3s",
    "KEYTURN_UNDO_FOR": "12s",
}
"""Waits of days become waits of seconds; no rule is switched off."""


def clean_environment() -> dict[str, str]:
    """The environment without settings of Keyturn's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")}


class Stack:
    """A running `keyturn up` and the ways in which its users meet it."""

    def __init__(self, data_dir: Path, settings: dict[str, str]) -> None:
        self.data_dir = data_dir
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("KEYTURN_")
        }
        self.environment = kept | dict(settings) | {"KEYTURN_DATA_DIR": str(data_dir)}
        self.output = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start and wait for the line that says so."""
        log = self.data_dir.with_suffix(".out")
        with log.open("w") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "up"],
                cwd=ROOT,
                env=self.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def ready() -> bool:
            assert self._process is not None
            self.output = log.read_text()
            assert self._process.poll() is None, self.output
            return "Ctrl-C stops everything." in self.output

        eventually(ready, within=120)

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(timeout=30)

    @property
    def servers(self) -> Embedded:
        """Where its servers are."""
        found = running(self.data_dir)
        assert found is not None
        return found

    def keyturn(self, *arguments: str, stdin: str | None = None, exit_code: int = 0) -> Any:
        """Run a command with --json and read its answer."""
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", *arguments, "--json"],
            cwd=ROOT,
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == exit_code, done.stdout + done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    def operator(self) -> Operator:
        """The library on this database."""
        return Operator(self.servers.database_url, secrets_dir=self.servers.secrets_dir)

    def xadd(self, stream: str, **fields: str) -> str:
        """What a producer does: one XADD."""
        with redis.Redis.from_url(self.servers.broker_url) as client:
            return str(client.xadd(stream, {**fields}).decode())

    def published(self) -> list[dict[str, Any]]:
        """The events on the stream out."""
        with redis.Redis.from_url(self.servers.broker_url) as client:
            return [json.loads(entry[b"event"]) for _, entry in client.xrange("keyturn:out")]

    def mails(self, to: str) -> list[Message]:
        """The mails that an owner got."""
        found = [
            message_from_bytes(file.read_bytes())
            for file in sorted((self.data_dir / "mail" / "new").glob("*"))
        ]
        return [mail for mail in found if to in str(mail["To"])]

    def worker_pid(self) -> int:
        """The worker's process id, by the file that its supervisor keeps."""
        found = PidFile(self.data_dir / "pids" / "worker.json").read()
        assert found is not None, "no worker runs"
        return found.pid

    def kill_worker(self) -> None:
        """SIGKILL, and wait until the supervisor has a new one."""
        old = self.worker_pid()
        os.kill(old, signal.SIGKILL)
        eventually(lambda: self.worker_pid() != old)

    @contextmanager
    def killed_while_waiting_for(self, table: str) -> Iterator[None]:
        """Lock a table, do the block, and SIGKILL the worker while a transaction of it waits."""
        with psycopg.connect(self.servers.database_url) as connection:
            connection.execute(f"LOCK TABLE keyturn.{table} IN EXCLUSIVE MODE")
            yield
            with psycopg.connect(self.servers.database_url, autocommit=True) as watcher:
                eventually(lambda: watcher.execute(_WAITING).fetchone(), every=0.02)
            self.kill_worker()


_WAITING: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'keyturn worker' AND wait_event_type = 'Lock'
"""


@contextmanager
def running_stack(settings: dict[str, str] = SECONDS) -> Iterator[Stack]:
    """A stack of its own, started, stopped and removed."""
    directory = Path(tempfile.mkdtemp(prefix="keyturn-flow-"))
    directory.chmod(0o755)
    stack = Stack(directory / "data", settings)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
        shutil.rmtree(directory, ignore_errors=True)
