"""What is looked at before a process begins its work: better no start than a quiet loss."""

import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from models import schema_version
from models.errors import Misconfigured
from models.schema_version import WrongSchema
from worker import setup
from worker.setting_fields import PREFIX
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings

__all__ = ["WrongSchema", "broker", "schema", "worker"]


def schema(settings: Settings) -> None:
    """Refuse a database whose schema is not this code's own, before anything is written."""
    engine = create_engine(
        settings.database_url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args={"connect_timeout": 5},
    )
    with engine.connect() as connection:
        schema_version.check(connection)


def broker(settings: Settings) -> None:
    """Refuse a Redis that may throw away queues, or forget streams when it ends.

    What it is set to is read by INFO, which shows no password, and which servers that are run by
    others show too; one that shows neither is worked with, and a warning says so. RabbitMQ keeps
    what it confirmed.
    """
    streams = settings.stream_url if settings.has_streams else None
    for url in dict.fromkeys((settings.broker_url, streams)):
        if url and urlsplit(url).scheme in REDIS_SCHEMES:
            _keeps(url, streams=url == streams and not settings.allow_broker_without_aof)


def _keeps(url: str, *, streams: bool) -> None:
    import structlog
    from redis.exceptions import ConnectionError as NoConnection
    from redis.exceptions import RedisError

    from worker.streams import connect

    try:
        with connect(url) as server:
            shown = {**server.info("memory"), **server.info("persistence")}
    except NoConnection:
        return  # not up yet: the worker itself waits for it
    except RedisError:
        shown = {}
    policy, appends = shown.get("maxmemory_policy"), shown.get("aof_enabled")
    if policy not in (None, "noeviction"):
        raise Misconfigured(
            f"the broker's maxmemory-policy is {policy!r}: it would throw away messages when its "
            "memory is full. Set `maxmemory-policy noeviction` there"
        )
    if streams and appends == 0:
        raise Misconfigured(
            "the server of the streams keeps no append-only file: when it ends, account events "
            "that nobody has read yet are gone, although their producers were told that it has "
            "them. Set `appendonly yes` there; where that cannot be, and its replicas are enough, "
            f"set {PREFIX}ALLOW_BROKER_WITHOUT_AOF=true"
        )
    if policy is None or (streams and appends is None):
        structlog.get_logger().warning(
            "broker_settings_unknown",
            why="the broker does not show its maxmemory-policy, or whether it keeps a file",
            mend="see to `maxmemory-policy noeviction` and `appendonly yes` yourself",
        )


def secrets(settings: Settings) -> None:
    """Refuse a directory of secrets that cannot be used; alarm where an older version is missing.

    Without it its keys are unknown and its sealed secrets stay shut. Everything else goes on:
    accounts must be cut off all the same.
    """
    import structlog

    from models import keyring
    from models.base import Database

    log = structlog.get_logger()
    at_hand = setup.keyring(settings)
    database = Database(settings.database_url, pool_size=0)
    try:
        missing = database.run(lambda tx: keyring.missing(tx, at_hand))
    except DBAPIError as error:
        log.warning("secrets_not_compared", error=type(error).__name__)
        return
    if missing:
        log.error(
            "alarm",
            alarm="secret_missing",
            missing=missing,
            why=f"keys or sealed secrets need what is not in {settings.secrets_dir}",
            mend="bring the files back from your backup; `keyturn secrets list` shows what needs "
            "them",
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
        broker(settings)
        secrets(settings)
    except Misconfigured as error:
        structlog.get_logger().error("refused_to_start", why=str(error))
        sys.exit(1)
