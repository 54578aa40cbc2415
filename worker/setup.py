"""What every process of Keyturn is put together from."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import structlog

from models import roles
from models.base import Database
from models.keyring import Keyring
from models.operator import Operator
from worker.bell import Bell
from worker.schedule import schedule
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings

if TYPE_CHECKING:
    from tasks import Runtime


log = structlog.get_logger()


def prepare(settings: Settings) -> None:
    """Bring the database to this code's schema and its roles to what the settings say."""
    from models import migrations  # Alembic is slow to import: most commands do without it

    migrations.upgrade(settings.database_url)
    database = Database(settings.database_url, pool_size=0)
    database.run(lambda tx: roles.sync(tx, settings.roles))
    database.close()


def keyring(settings: Settings) -> Keyring:
    """The secrets of this installation; Misconfigured where they are missing or open to others."""
    return Keyring.from_directory(settings.secrets_dir)


def database(settings: Settings, *, pool_size: int, name: str) -> Database:
    """The database, with a doorbell on the broker. Connects at the first use."""
    timeout = int(settings.statement_timeout.total_seconds() * 1000)
    made = Database(
        settings.database_url, pool_size=pool_size, statement_timeout_ms=timeout, name=name
    )
    made.on_commit = Bell(made, _Publisher(settings))
    made.on_alarm = _tell
    return made


def runtime(settings: Settings) -> "Runtime":
    """What tasks are given, for a worker of `settings.concurrency` threads."""
    from tasks import Runtime
    from tasks.clock import ClockGuard
    from worker.channels import make_channels
    from worker.sinks import make_sinks

    return Runtime(
        database=database(settings, pool_size=settings.concurrency + 1, name="keyturn worker"),
        policy=settings.policy(),
        keyring=keyring(settings),
        channels=make_channels(settings),
        sinks=make_sinks(settings.sinks),
        schedule=schedule(settings),
        clock=ClockGuard(broker_time=lambda: _broker_time(settings)),
    )


def operator(settings: Settings, actor: str) -> Operator:
    """The commands, given by `actor`. The secrets are read when one needs them."""
    made = Operator(
        settings.database_url,
        keyring=lambda: keyring(settings),
        policy=settings.policy(),
        actor=actor,
    )
    made.database.on_commit = Bell(made.database, _Publisher(settings))
    made.database.on_alarm = _tell
    return made


def _tell(alarm: dict[str, object]) -> None:
    log.error("alarm", **alarm)


CONFIRM_WITHIN: Final = 10.0
"""Seconds in which RabbitMQ must confirm a ring; its connection is given up then."""


class _Publisher:
    """Publishes rings; Celery is slow to import, and only who rings pays for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._app: Any = None

    def __call__(self, flow: str) -> None:
        if self._app is None:
            from worker.app import make_app

            self._app = make_app(self._settings)
        with self._app.producer_or_acquire() as producer:
            try:
                self._app.send_task(
                    flow,
                    producer=producer,
                    retry=False,
                    ignore_result=True,
                    confirm_timeout=CONFIRM_WITHIN,
                )
            except Exception:
                producer.connection.collect()  # without a farewell, which might hang as well
                raise


def _broker_time(settings: Settings) -> datetime | None:
    """The broker's clock (UTC), or None where the broker does not tell it or does not answer."""
    if urlsplit(settings.broker_url).scheme not in REDIS_SCHEMES:
        return None
    from redis.exceptions import RedisError

    from worker.streams import connect

    try:
        seconds, microseconds = connect(settings.broker_url).time()
    except RedisError:
        return None
    return datetime.fromtimestamp(seconds + microseconds / 1_000_000, UTC)
