"""Connections to Redis or Valkey that never repeat a command by themselves.

redis-py sends a command again up to ten times by default: after a lost answer that appends a stream
entry twice. Whoever asks here decides alone whether to ask again.
"""

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

TIMEOUT = 10.0
"""Seconds to wait for an answer; connecting has half of it. A blocking read stays well below."""


def connect(url: str, timeout: float = TIMEOUT) -> "Redis":
    """A client for one server; connects at its first command."""
    return Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout,
        socket_connect_timeout=timeout / 2,
        health_check_interval=25,
    )
