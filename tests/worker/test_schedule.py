"""Every flow has its time, and no jitter of the ticks makes it rest twice as long."""

from datetime import UTC, datetime, timedelta

from freezegun import freeze_time

import tasks
from models import schedule_runs
from models.base import Database
from models.policy import Policy
from tests.world import EPOCH
from worker.schedule import TICK, schedule, tick_every
from worker.settings import Settings


def test_every_flow_but_the_tick_itself_is_scheduled() -> None:
    assert set(schedule(Settings())) == set(tasks.flows()) - {TICK}


def test_a_flow_runs_at_every_tick_it_asked_for_although_ticks_jitter(database_url: str) -> None:
    settings = Settings()
    tick = tick_every(settings).total_seconds()
    rests = schedule(settings)
    database = Database(database_url, clock=lambda: datetime.now(UTC))

    def due() -> list[str]:
        return database.run(lambda tx: schedule_runs.due(tx, rests))

    def start(job: str) -> None:
        database.run(lambda tx: schedule_runs.begin(tx, job, Policy(), exclusive=False))

    runs = dict.fromkeys(("keys.expire_due", "rotations.advance"), 0)
    with freeze_time(EPOCH) as clock:
        for number in range(60):  # five minutes
            for job in due():
                clock.tick(timedelta(milliseconds=40))  # the run starts a little after its tick
                start(job)
                if job in runs:
                    runs[job] += 1
            at = EPOCH + timedelta(seconds=(number + 1) * tick + (0.03 if number % 2 else 0))
            clock.move_to(at)
    assert runs == {"keys.expire_due": 60, "rotations.advance": 10}
