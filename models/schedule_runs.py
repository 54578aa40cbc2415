"""One row per flow: a lease, how the last run went, and whether a ring is outstanding."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from .base import Tx
from .policy import Policy

RING_LOST_AFTER = timedelta(seconds=10)
"""A ring that no run has answered in this time is taken for lost."""


@dataclass(frozen=True)
class ScheduleRun:
    """A flow's last run. Times are UTC; `done` counts what the run changed."""

    job: str
    lease_until: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    done: int
    error: str | None


def mark_rung(tx: Tx, jobs: Iterable[str]) -> list[str]:
    """Which of these flows to ring now: those with no ring outstanding.

    Runs in a transaction of its own after the work's commit: a run that has not started yet will
    see that work, one that has is rung for again.
    """
    rows = tx.execute(
        """
        INSERT INTO keyturn.schedule_runs AS s (job, rung_at)
        SELECT job, :now FROM unnest(CAST(:jobs AS text[])) AS job ORDER BY job
        ON CONFLICT (job) DO UPDATE SET rung_at = :now
        WHERE s.rung_at IS NULL OR s.rung_at < :now - :lost OR s.rung_at > :now + :lost
        RETURNING job
        """,
        jobs=sorted(jobs),
        lost=RING_LOST_AFTER,
    )
    return list(rows.scalars())


def due(tx: Tx, schedule: Mapping[str, timedelta]) -> list[str]:
    """The flows whose time has come: their last run started longer ago than they may rest.

    Or it started in times to come, by a clock that was put right since.
    """
    rows = tx.execute(
        """
        SELECT f.job FROM unnest(CAST(:jobs AS text[]), CAST(:rests AS interval[])) AS f (job, rest)
        LEFT JOIN keyturn.schedule_runs s USING (job)
        WHERE s.started_at IS NULL OR s.started_at + f.rest <= :now OR s.started_at > :now + f.rest
        ORDER BY f.job
        """,
        jobs=list(schedule),
        rests=list(schedule.values()),
    )
    return list(rows.scalars())


def begin(tx: Tx, job: str, policy: Policy, *, exclusive: bool) -> int | None:
    """Note that a run starts; returns its fence, or None where another run holds the lease.

    A lease that was given by a clock far ahead of the present one is nobody's.
    """
    fence: int | None = tx.scalar(
        """
        INSERT INTO keyturn.schedule_runs AS s (job, started_at, lease_until, fence)
        VALUES (:job, :now, :now + :lease, 1)
        ON CONFLICT (job) DO UPDATE SET
            rung_at = NULL, started_at = :now, lease_until = :now + :lease, fence = s.fence + 1
        WHERE NOT :exclusive OR s.lease_until IS NULL OR s.lease_until <= :now
            OR s.started_at > :now + :lease
        RETURNING fence
        """,
        job=job,
        lease=policy.lease,
        exclusive=exclusive,
    )
    return fence


def finish(tx: Tx, job: str, fence: int, *, done: int, error: str | None = None) -> bool:
    """Note how a run ended and give its lease back; False where a later run has taken over."""
    return bool(
        tx.count(
            """
            UPDATE keyturn.schedule_runs SET
                finished_at = :now, lease_until = NULL, done = :done, error = :error
            WHERE job = :job AND fence = :fence
            """,
            job=job,
            fence=fence,
            done=done,
            error=error,
        )
    )


def listed(tx: Tx) -> list[ScheduleRun]:
    """Every flow that has run, by name."""
    rows = tx.rows(
        """
        SELECT job, lease_until, started_at, finished_at, done, error
        FROM keyturn.schedule_runs WHERE started_at IS NOT NULL ORDER BY job
        """
    )
    return [ScheduleRun(**row) for row in rows]
