"""Whether this process hears its broker: it sends itself a message, and waits for it to come.

A worker that reads nothing looks well from anywhere else: its connections stand, it ticks where
beat is silent, and others take what it leaves lying. So each has a queue of its own, its ear, which
its one consumer reads beside the common one. What comes of either shows that it hears.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from uuid import uuid4

import structlog
from celery import Celery
from kombu import Queue

from tasks import running
from worker.setup import CONFIRM_WITHIN

log = structlog.get_logger()

EAR: Final = "keyturn.ear."
"""What the names of these queues begin with: permissions on the broker know them by it."""

DEAF_AFTER: Final = timedelta(seconds=60)
"""Twice as long as a worker takes at most to connect anew once its broker is back (30 s)."""

GONE_AFTER: Final = 5 * DEAF_AFTER
"""When the broker throws away the ear of a process that is no more, and what lies in it."""


class Hearing:
    """What one process has heard of late. `ask` and `deaf` are for its threads, the rest for its
    consumer.

    Time counts by the questions that were asked and not answered, so that a process that was
    stopped for a while, or whose broker is away, is not taken for deaf.
    """

    def __init__(self) -> None:
        name = f"{EAR}{uuid4().hex}"
        self.ear = Queue(name, routing_key=name, expires=GONE_AFTER.total_seconds())
        self.places = 0
        """Messages that the consumer may have at a time; 0 while there is none."""
        self._heard = True
        self._waited = timedelta(0)

    def heard(self) -> None:
        """Something has come."""
        self._heard = True

    def is_own(self, message: Any) -> bool:
        """Whether a message came by this process's ear."""
        return bool(message.delivery_info.get("routing_key") == self.ear.name)

    def ask(self, send: Callable[[Queue], object], every: timedelta) -> None:
        """Once in `every`: send a message to the ear unless something has come since the last call.

        Who has all hands full reads nothing, rightly; and where the broker takes nothing, nothing
        can come of it.
        """
        if not self.places or self._heard or running.others() >= self.places:
            self._heard, self._waited = False, timedelta(0)
            return
        try:
            send(self.ear)
        except Exception as error:
            log.debug("ear_not_reached", error=type(error).__name__)
            self._waited = timedelta(0)
        else:
            self._waited += every

    @property
    def deaf(self) -> bool:
        """Whether nothing has come for DEAF_AFTER, though it was sent."""
        return not self._heard and self._waited > DEAF_AFTER


own: Final = Hearing()
"""That of this process, which has one consumer at most."""


def sender(app: Celery) -> Callable[[Queue], None]:
    """What sends a message to an ear. Raises what the broker's client does."""

    def send(ear: Queue) -> None:
        with app.producer_or_acquire() as producer:
            try:
                ear(producer.channel).declare()  # else Redis would keep what nobody reads
                producer.publish(
                    {},
                    exchange="",
                    routing_key=ear.name,
                    retry=False,
                    delivery_mode="transient",
                    confirm_timeout=CONFIRM_WITHIN,
                )
            except Exception:
                producer.connection.collect()
                raise

    return send
