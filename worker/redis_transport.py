"""Kombu's transport for Redis and Valkey, which a stray entry in the queue's list cannot end.

What somebody pushes there by hand is taken out of the list before it is read. With kombu alone one
that is no JSON, or not in Celery's envelope, ends the worker that got it.
"""

from typing import Any

import structlog
from kombu.transport import redis

log = structlog.get_logger()

UNREADABLE = (AttributeError, LookupError, RecursionError, TypeError, ValueError)


class Channel(redis.Channel):  # type: ignore[misc]
    """Drops what is no message, with an alarm."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except UNREADABLE as error:
            log.error("alarm", alarm="message_refused", why=type(error).__name__)
            return True


class Transport(redis.Transport):  # type: ignore[misc]
    """The transport of Redis with these channels."""

    Channel = Channel
