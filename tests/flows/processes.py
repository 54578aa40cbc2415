"""Single processes of Keyturn on the tests' own servers."""

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.flows.stack import ROOT, SECONDS, clean_environment

Running = AbstractContextManager[subprocess.Popen[bytes]]


def environment(
    database_url: str, broker_url: str, secrets_dir: Path, **more: str
) -> dict[str, str]:
    """The settings of a process: these servers, second-sized waits, and a mailbox of its own."""
    return (
        clean_environment()
        | SECONDS
        | {
            "KEYTURN_DATABASE_URL": database_url,
            "KEYTURN_BROKER_URL": broker_url,
            "KEYTURN_SECRETS_DIR": str(secrets_dir),
            "KEYTURN_MAIL_CHANNEL": "none",
        }
        | more
    )


@contextmanager
def process(env: Mapping[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a module of this environment (`celery ...`, `worker.cli ...`) until the block ends."""
    with tempfile.TemporaryFile() as log:
        started = subprocess.Popen(
            [sys.executable, "-m", *arguments], cwd=ROOT, env=env, stdout=log, stderr=log
        )
        try:
            yield started
            assert started.poll() is None, "the process ended by itself"
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace")[-4000:])
            raise
        finally:
            if started.poll() is None:
                started.send_signal(signal.SIGTERM)
            try:
                started.wait(timeout=15)
            except subprocess.TimeoutExpired:
                started.kill()
                started.wait()


@contextmanager
def left_alone(
    command: Sequence[str], env: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run Python with these arguments, to see how it ends by itself; killed where it does not."""
    with log.open("wb") as out:
        started = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=env, stdout=out, stderr=out
        )
    try:
        yield started
    finally:
        if started.poll() is None:
            started.kill()
        started.wait()


def worker(env: Mapping[str, str], name: str = "w1") -> Running:
    """A Celery worker."""
    return process(
        env, "celery", "-A", "worker.main", "worker", "-P", "threads", "-n", f"{name}@%h"
    )


def beat(env: Mapping[str, str]) -> Running:
    """A Celery beat."""
    return process(env, "celery", "-A", "worker.main", "beat")


def intake(env: Mapping[str, str]) -> Running:
    """An intake process."""
    return process(env, "worker.cli", "intake")
