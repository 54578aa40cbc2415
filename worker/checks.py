"""What is looked at before a process begins its work: better no start than a quiet loss."""

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from models import schema_version
from models.errors import Misconfigured
from models.schema_version import WrongSchema
from worker import setup
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings

__all__ = ["WrongSchema", "eviction", "schema", "worker"]


def schema(settings: Settings) -> None:
    """Refuse a database whose schema is not this code's own, before anything is written."""
    engine = create_engine(settings.database_url, poolclass=NullPool, hide_parameters=True)
    with engine.connect() as connection:
        schema_version.check(connection)


def eviction(url: str) -> None:
    """Refuse a Redis that may throw away queues when its memory is full."""
    if urlsplit(url).scheme not in REDIS_SCHEMES:
        return
    import structlog
    from redis.exceptions import ConnectionError as NoConnection
    from redis.exceptions import RedisError

    from worker.streams import connect

    try:
        policy = connect(url).config_get("maxmemory-policy").get("maxmemory-policy")
    except NoConnection:
        return  # not up yet: the worker itself waits for it
    except RedisError:
        log = structlog.get_logger()
        log.warning("eviction_unknown", why="the broker does not show its maxmemory-policy")
        return
    if policy != "noeviction":
        raise Misconfigured(
            f"the broker's maxmemory-policy is {policy!r}: it would throw away messages when its "
            "memory is full. Set `maxmemory-policy noeviction` there"
        )


def celery(conf: Mapping[str, Any]) -> None:
    """Refuse what Celery can be told beside our settings, and must not be."""
    if conf["task_always_eager"]:
        raise Misconfigured(
            "task_always_eager runs tasks without a broker, where nothing is acknowledged or "
            "repeated: it is for tests; switch it off"
        )
    if set(conf["accept_content"]) != {"json"}:
        raise Misconfigured("accept_content may name nothing but json: switch the others off")


def worker(settings: Settings, conf: Mapping[str, Any]) -> None:
    """All that a worker needs; ends the process with one line where something is wrong.

    `conf` is Celery's configuration as it stands at the start.
    """
    import structlog

    try:
        celery(conf)
        schema(settings)
        eviction(settings.broker_url)
        setup.keyring(settings)
    except Misconfigured as error:
        structlog.get_logger().error("refused_to_start", why=str(error))
        sys.exit(1)
