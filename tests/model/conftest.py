"""One database for all examples, and how many of them there are."""

import logging
import os
from collections.abc import Iterator
from typing import Final

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.model.compared import BURST_ACCOUNTS, BURST_WINDOW
from tests.model.real import Real
from worker.embedded.postgres import Postgres

EXAMPLES: Final = int(
    os.environ.get("MODEL_EXAMPLES") or (2000 if os.environ.get("CI") == "true" else 60)
)
PARTS: Final = 16
STEPS: Final = 50
MODEL: Final = settings(
    max_examples=-(-EXAMPLES // PARTS),
    stateful_step_count=STEPS,
    deadline=None,
    derandomize=not os.environ.get(
        "MODEL_RANDOM"
    ),  # the same examples in every run: a failure can be had again
    print_blob=True,
    report_multiple_bugs=False,
    suppress_health_check=list(HealthCheck),
)
settings.register_profile("model", MODEL)


@pytest.fixture
def quiet_logs() -> Iterator[None]:
    """Thousands of runs of flows would bury what a failure has to say."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


@pytest.fixture(scope="session")
def real(postgres: Postgres, migrated_template: str) -> Iterator[Real]:
    """The installation that all examples use, each after emptying it."""
    with postgres.connect() as connection:
        connection.execute(f"CREATE DATABASE model TEMPLATE {migrated_template}")
    made = Real(postgres.url("model"), BURST_ACCOUNTS, BURST_WINDOW)
    yield made
    made.close()
