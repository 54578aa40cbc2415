"""Whether a role is well: by the rows of its job, and the clock of the database."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from models import schedule_runs
from models.base import Database
from models.policy import Policy
from worker.health import JOBS, patience, trouble
from worker.settings import load_settings

JOB = JOBS["worker"]
WITHIN = timedelta(minutes=2)


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(database_url: str, clock: Clock) -> Iterator[Database]:
    made = Database(database_url, clock=clock, pool_size=1)
    yield made
    made.close()


def begin(database: Database) -> int:
    fence = database.run(lambda tx: schedule_runs.begin(tx, JOB, Policy(), exclusive=False))
    assert fence is not None
    return fence


def finish(database: Database, fence: int, error: str | None = None) -> None:
    database.run(lambda tx: schedule_runs.finish(tx, JOB, fence, done=0, error=error))


def test_a_job_that_never_ran_is_trouble(database: Database) -> None:
    assert "never finished" in (trouble(database, JOB, WITHIN) or "")


def test_a_job_that_began_and_hangs_is_trouble(database: Database) -> None:
    begin(database)
    assert "never finished" in (trouble(database, JOB, WITHIN) or "")


def test_a_job_is_well_until_its_time_is_over(database: Database, clock: Clock) -> None:
    finish(database, begin(database))
    assert trouble(database, JOB, WITHIN) is None
    clock.now += WITHIN
    assert trouble(database, JOB, WITHIN) is None
    clock.now += timedelta(seconds=1)
    assert "121 s ago" in (trouble(database, JOB, WITHIN) or "")


def test_another_job_does_not_help(database: Database) -> None:
    finish(database, begin(database))
    assert trouble(database, JOBS["intake"], WITHIN) is not None


def test_a_job_that_fails_is_trouble_until_it_works_again(database: Database) -> None:
    finish(database, begin(database), error="OperationalError")
    assert "OperationalError" in (trouble(database, JOB, WITHIN) or "")
    finish(database, begin(database))
    assert trouble(database, JOB, WITHIN) is None


def test_patience_outlasts_the_lease_of_a_killed_worker(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setenv("KEYTURN_LEASE", "3m")
    assert patience(load_settings()) > timedelta(minutes=3)
