"""A worker ends when its tasks are through, at once, and also where something hangs."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import psycopg
import pytest

from tests.compose_file import STOP_WITHIN
from tests.eventually import eventually
from tests.flows.processes import environment, left_alone
from tests.flows.stack import ROOT
from worker.app import make_app
from worker.settings import Settings
from worker.watchdog import STUCK

JOB: Final = "keys.expire_due"
WORKER: Final = ("--app", "worker.main", "worker", "--pool", "threads", "-c", "2")

_WAITING: Final = """
    SELECT pid FROM pg_stat_activity
    WHERE application_name = 'keyturn worker' AND wait_event_type = 'Lock'
      AND datname = current_database()
"""


def test_a_worker_ends_as_soon_as_its_task_is_through(
    database_url: str, secrets_dir: Path, tmp_path: Path, either_url: str
) -> None:
    """On SIGTERM, as docker-compose.yml has it: Celery alone sleeps for 30 s then."""
    log = tmp_path / "log"
    settings = {"REMAP_SIGTERM": "SIGQUIT", "KEYTURN_STATEMENT_TIMEOUT": "15s"}
    env = environment(database_url, either_url, secrets_dir, **settings, KEYTURN_LEASE="20s",
                      KEYTURN_VISIBILITY_TIMEOUT="60s")  # fmt: skip
    with (
        psycopg.connect(database_url) as holding,
        psycopg.connect(database_url, autocommit=True) as watching,
        left_alone(["-m", "celery", *WORKER], env, log) as process,
        make_app(Settings(broker_url=either_url)) as app,
    ):
        eventually(lambda: " ready." in log.read_text(), within=60)
        [held] = holding.execute("SELECT clock_timestamp()").fetchone() or [None]
        holding.execute("LOCK TABLE keyturn.api_keys IN ACCESS EXCLUSIVE MODE")
        app.send_task(JOB)
        eventually(lambda: watching.execute(_WAITING).fetchone())
        process.terminate()
        eventually(lambda: '"worker_ends"' in log.read_text())
        assert process.poll() is None, "it does not leave its task"
        holding.rollback()
        assert process.wait(STOP_WITHIN) == 0, log.read_text()
        ended = "SELECT job FROM keyturn.schedule_runs WHERE job = %s AND finished_at > %s"
        assert watching.execute(ended, [JOB, held]).fetchone(), "its task was not done"


_HANGS: Final = """
import sys, threading
from datetime import timedelta

from celery.concurrency.thread import TaskPool

from worker import app, boot

boot.PATIENCE = timedelta(seconds=2)
common = app._common
app._common = lambda given: {**common(given), "worker_soft_shutdown_timeout": 1.0}
TaskPool.on_stop = lambda self: threading.Event().wait()

from celery.__main__ import main
main()
"""
"""A worker that never gets through with its end."""


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGQUIT], ids=["warm", "cold"])
def test_an_end_that_hangs_is_an_end(
    database_url: str, broker_url: str, secrets_dir: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    log = tmp_path / "log"
    env = environment(
        database_url, broker_url, secrets_dir, KEYTURN_STATEMENT_TIMEOUT="1s", KEYTURN_LEASE="2s"
    )
    with left_alone(["-c", _HANGS, *WORKER], env, log) as process:
        eventually(lambda: " ready." in log.read_text(), within=60)
        process.send_signal(sent)
        assert process.wait(20) == STUCK, log.read_text()
    assert '"the end of the process"' in log.read_text()


_UNREAD: Final = """
import logging, threading
from datetime import timedelta

from worker import watchdog
from worker.logs import configure_logging

configure_logging("info", "json", "kt")
watchdog.TELL_WITHIN = 1.0

def write():
    while True:
        logging.getLogger("worker").warning("x" * 1000)

threading.Thread(target=write, daemon=True).start()
watchdog.Watchdog(timedelta(hours=1), deaf=lambda: True).start()
threading.Event().wait()
"""


def test_a_process_whose_log_nobody_reads_ends_all_the_same() -> None:
    """Its pipe is full: who writes to it waits for ever, with the lock of all logging."""
    with subprocess.Popen(
        [sys.executable, "-c", _UNREAD], cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        try:
            assert process.wait(20) == STUCK
        finally:
            process.kill()
