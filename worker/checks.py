"""What is looked at before a process begins its work: better no start than a quiet loss."""

import sys
from urllib.parse import urlsplit

import structlog
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from models import migrations
from models.errors import Misconfigured
from worker import setup
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings
from worker.streams import connect

log = structlog.get_logger()


class WrongSchema(Misconfigured):
    """The database's schema is older or newer than this code."""


def schema(settings: Settings) -> None:
    """Refuse a database whose schema is not this code's own, before anything is written."""
    engine = create_engine(settings.database_url, poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        found = migrations.current(connection)
    if found == migrations.head():
        return
    if found is None:
        raise WrongSchema("the database has no schema yet: run `keyturn migrate`")
    newer = found > migrations.head()
    mend = "upgrade Keyturn" if newer else "run `keyturn migrate`"
    raise WrongSchema(
        f"the database's schema is {found}, this Keyturn is written for {migrations.head()}: {mend}"
    )


def eviction(url: str) -> None:
    """Refuse a Redis that may throw away queues when its memory is full."""
    if urlsplit(url).scheme not in REDIS_SCHEMES:
        return
    try:
        policy = connect(url).config_get("maxmemory-policy").get("maxmemory-policy")
    except NoConnection:
        return  # not up yet: the worker itself waits for it
    except RedisError:
        log.warning("eviction_unknown", why="the broker does not show its maxmemory-policy")
        return
    if policy != "noeviction":
        raise Misconfigured(
            f"the broker's maxmemory-policy is {policy!r}: it would throw away messages when its "
            "memory is full. Set `maxmemory-policy noeviction` there"
        )


def worker(settings: Settings) -> None:
    """All that a worker needs; ends the process with one line where something is wrong."""
    try:
        schema(settings)
        eviction(settings.broker_url)
        setup.keyring(settings)
    except Misconfigured as error:
        log.error("refused_to_start", why=str(error))
        sys.exit(1)
