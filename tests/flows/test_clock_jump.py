"""The database's clock jumps by 400 days under a running worker, and is put right again."""

from pathlib import Path

import psycopg
from psycopg import conninfo, sql
from sqlalchemy.exc import DBAPIError

from models import TimeUnit, schedule_runs
from models.operator import Operator
from models.schedule_runs import ScheduleRun
from tests.eventually import eventually
from tests.flows.processes import environment, worker
from tests.world import ADA, World

CLOCKS = ("now", "transaction_timestamp", "statement_timestamp", "clock_timestamp")
JOB = "keys.expire_due"


def move(url: str, ahead: str) -> None:
    """Have the functions that tell the time tell another one, to all who connect from now on."""
    named = sql.Identifier(str(conninfo.conninfo_to_dict(url)["dbname"]))
    with psycopg.connect(url, autocommit=True) as owner:
        owner.execute("SET search_path = pg_catalog")
        owner.execute("CREATE SCHEMA IF NOT EXISTS moved")
        for clock in CLOCKS:
            owner.execute(
                sql.SQL(
                    "CREATE OR REPLACE FUNCTION moved.{clock}() RETURNS timestamptz LANGUAGE sql"
                    " AS 'SELECT pg_catalog.{clock}() + interval {ahead}'"
                ).format(clock=sql.SQL(clock), ahead=sql.SQL(f"''{ahead}''"))
            )
        owner.execute(
            sql.SQL("ALTER DATABASE {} SET search_path = moved, pg_catalog").format(named)
        )
        owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )


def test_no_key_ends_for_ever_and_the_worker_started_anew_goes_on(
    database_url: str, broker_url: str, secrets_dir: Path
) -> None:
    settings = environment(database_url, broker_url, secrets_dir)
    with Operator(database_url) as operator:

        def last() -> ScheduleRun | None:
            try:
                with operator.database.begin() as tx:
                    return next((one for one in schedule_runs.listed(tx) if one.job == JOB), None)
            except DBAPIError:  # the connection that was just ended
                return None

        def suspect() -> bool:
            found = last()
            return found is not None and "jumped" in (found.error or "")

        def ran() -> bool:
            found = last()
            return found is not None and found.finished_at is not None and not found.error

        World(operator.database).account()
        keys = [
            operator.create_api_key(f"key {number}", ADA, "viewer", 30, TimeUnit.DAY)
            for number in range(120)
        ]
        with worker(settings):
            eventually(ran)
            move(database_url, "400 days")
            eventually(suspect)
            assert operator.verify(keys[0].text.reveal()).reason == "expired"
        move(database_url, "0 days")
        eventually(lambda: operator.verify(keys[0].text.reveal()).valid)
        assert {operator.key(str(key.id)).status for key in keys} == {"active"}
        with worker(settings):
            eventually(ran)
            assert not suspect()
