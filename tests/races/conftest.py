"""A stage for two sides."""

from collections.abc import Iterator
from datetime import timedelta

import psycopg
import pytest

from models.key_text import Peppers
from models.keyring import Keyring
from models.policy import Policy
from models.sealing import Sealer
from tests.model.conftest import quiet_logs
from tests.model.real import Post, Shelf
from tests.races.stage import POLICIES, SHELF, Actor, Stage
from worker.embedded.postgres import Postgres

__all__ = ["quiet_logs", "stage"]


@pytest.fixture(scope="session")
def stage(postgres: Postgres, migrated_template: str) -> Iterator[Stage]:
    """One database for all schedules, emptied before each."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE races TEMPLATE {migrated_template}")
        connection.execute("ALTER DATABASE races SET deadlock_timeout = '20ms'")
    keyring = Keyring(Peppers({1: b"p" * 32}), Sealer({1: b"k" * 32}))
    policy = Policy(
        settle_batch=2,
        deliver_batch=2,
        lease=timedelta(seconds=120),
        rotation_policies=POLICIES,
        wave_keys=2,
        bulk_rate=1e7,  # nobody waits for the pace
    )
    channels, shelf = {"events": Post(), "mail": Post()}, Shelf()
    url = postgres.url("races")
    left, right, keeper = (Actor(url, keyring, policy, channels, {SHELF: shelf}) for _ in range(3))
    with psycopg.connect(url, autocommit=True) as watch:
        made = Stage(left, right, keeper, watch, channels, shelf)
        yield made
        made.close()
