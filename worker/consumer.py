"""What a worker does with messages of its queue that are no rings: it refuses them, and goes on.

Celery's own consumer writes their whole text into the log, and some of them end it.
"""

from collections.abc import Callable
from typing import Any, Final

import structlog
from celery import bootsteps, signals
from celery.utils.log import get_logger
from celery.worker import consumer
from kombu import Exchange, Queue

from worker import compressed, hearing
from worker.app import DEAD

log = structlog.get_logger()
_celery_log = get_logger(__name__)

ORDERS: Final = ("callbacks", "errbacks", "chain", "chord", "eta")
"""What may come with a task besides its arguments, and never does with ours: messages that Celery
would send on, in the worker's name and by its rights, and a time until which it would keep the task
in memory (on RabbitMQ a handful of those ends all reading)."""


class DeadLetters(bootsteps.StartStopStep):  # type: ignore[misc]
    """On RabbitMQ: the queue in which refused messages are kept for a person to look at."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, parent: Any) -> bool:
        return bool(parent.app.connection_for_write().transport.driver_type == "amqp")

    def start(self, parent: Any) -> None:
        exchange = Exchange(DEAD, "fanout", durable=True)
        queue = Queue(DEAD, exchange, queue_arguments={"x-queue-type": "quorum"})
        queue(parent.connection.default_channel).declare()


class Ear(bootsteps.StartStopStep):  # type: ignore[misc]
    """The queue by which a worker hears itself, read by the consumer that reads the common one."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def start(self, parent: Any) -> None:
        parent.task_consumer.add_queue(hearing.own.ear)
        hearing.own.places = parent.initial_prefetch_count


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, unharmed by whatever lies in its queue, and silent about its content."""

    class Blueprint(consumer.Consumer.Blueprint):  # type: ignore[misc]
        """Without the 28 queues that Celery declares for tasks of a later time: we have none."""

        default_steps = [  # noqa: RUF012 - Celery's own form
            *(step for step in consumer.Consumer.Blueprint.default_steps if "delayed" not in step),
            DeadLetters,
            Ear,
        ]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        compressed.bound()
        # Whoever can write to the broker could pass for another worker.
        super().__init__(*args, **{**kwargs, "without_gossip": True, "without_mingle": True})

    def update_strategies(self) -> None:
        super().update_strategies()
        for name in [one for one in self.strategies if one.startswith("celery.")]:
            del self.strategies[name]  # Celery's own tasks run others, and send messages

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*args, **kwargs)
        # Kombu counts KeyError among the lost connections of Redis; here it is a member missing.
        broker_errors = tuple(one for one in self.connection_errors if one is not KeyError)
        taken = _Taken(self.connection.transport.driver_type, self.initial_prefetch_count)

        def on_message(message: Any) -> None:
            try:
                if hearing.own.is_own(message):
                    message.ack()
                    if not taken.fill_all_places():
                        log.debug("heard_itself")
                        hearing.own.heard()
                    return
                hearing.own.heard()
                taken.add(message)
                if _gives_orders(message):
                    self._refuse(message, "it is for later, or for others to follow")
                else:
                    handle(message)
            except broker_errors:
                raise
            except Exception as error:
                self._refuse(message, type(error).__name__)

        return on_message

    def on_unknown_message(self, body: object, message: Any) -> None:
        self._refuse(message, "it is no task")
        signals.task_rejected.send(sender=self, message=message, exc=None)

    def on_unknown_task(self, body: object, message: Any, exc: Exception) -> None:
        self._refuse(message, "this release has no such task")
        signals.task_unknown.send(sender=self, message=message, exc=exc, name=None, id=None)

    def on_invalid_task(self, body: object, message: Any, exc: Exception) -> None:
        self._refuse(message, type(exc).__name__)
        signals.task_rejected.send(sender=self, message=message, exc=exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._refuse(message, type(exc).__name__)

    def _refuse(self, message: Any, why: str) -> None:
        """Give a message back as unusable: RabbitMQ keeps it in DEAD, Redis forgets it."""
        log.error("alarm", alarm="message_refused", why=why, size=len(message.body or b""))
        if not message.acknowledged:
            message.reject_log_error(_celery_log, self.connection_errors)


class _Taken:
    """Messages of one connection that are not acknowledged.

    RabbitMQ counts the places of each queue by themselves, so that a message by the ear says
    nothing about the common queue where all of those are taken. On Redis both share them.
    """

    def __init__(self, driver: str, places: int) -> None:
        self._counts = driver == "amqp"
        self._places = places
        self._messages: list[Any] = []

    def add(self, message: Any) -> None:
        if self._counts:
            self._messages = [one for one in self._messages if not one.acknowledged]
            self._messages.append(message)

    def fill_all_places(self) -> bool:
        """Whether no further message will come by the common queue, as it looks now."""
        open_ones = sum(not one.acknowledged for one in self._messages)
        return open_ones >= self._places


def _gives_orders(message: Any) -> bool:
    """Whether a message says more than which task to run with what.

    In Celery's protocol 2 that stands in the headers or beside the arguments, in 1 in the body.
    """
    body = message.payload
    beside = body[2:3] if isinstance(body, list) else [body]
    given = [one for one in (message.headers, *beside) if isinstance(one, dict)]
    return any(one.get(name) for one in given for name in ORDERS)
