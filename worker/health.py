"""What a container's health check runs: `python -m worker.health worker`, exit code 0 or 1.

No process is asked (a worker takes no orders from the broker). A role is healthy while its job
gets done, by the rows and the clock of the database; so this says whether the role is filled, not
by which of its processes.
"""

import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from models import schedule_runs
from models.base import Database
from models.errors import Misconfigured
from worker.intake.main import JOB as RECEIVING
from worker.schedule import TICK, tick_every
from worker.settings import Settings, load_settings

JOBS: Final[Mapping[str, str]] = {"beat": TICK, "worker": TICK, "intake": RECEIVING}
"""The job that shows each role: what beat sends out and a worker does is one and the same."""


def patience(settings: Settings) -> timedelta:
    """How old a job's last end may be: a lease that a killed worker left behind runs out first."""
    return settings.lease + 3 * tick_every(settings)


def trouble(database: Database, job: str, within: timedelta) -> str | None:
    """Why `job` counts as not done, or None where its last run ended well within that time."""
    with database.begin() as tx:
        now = tx.now()
        run = next((run for run in schedule_runs.listed(tx) if run.job == job), None)
    if run is None or run.finished_at is None:
        return f"{job} has never finished: see the logs of worker, beat and intake"
    if run.error is not None:
        return f"{job} fails ({run.error}): see the logs of the worker"
    age = now - run.finished_at
    if age > within:
        return f"{job} last finished {age.total_seconds():.0f} s ago: see whether its process runs"
    return None


def main() -> None:
    """Check the role named on the command line; ends the process, with a line where it is ill."""
    role = " ".join(sys.argv[1:])
    if role not in JOBS:
        sys.exit(f"name one role: python -m worker.health {'|'.join(JOBS)}")
    try:
        settings = load_settings()
        database = Database(settings.database_url, pool_size=0)
        reason = trouble(database, JOBS[role], patience(settings))
    except Misconfigured as error:
        reason = str(error)
    except Exception as error:  # whatever it is: nobody can say that the role is well
        reason = f"the database does not answer ({type(error).__name__})"
    sys.exit(f"unhealthy: {reason}" if reason else 0)


if __name__ == "__main__":
    main()
