"""The Celery app: how rings travel. What they ring for is in `tasks`."""

import ssl
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
from celery import Celery, Task
from celery.exceptions import Reject

from models.base import is_server_trouble
from tasks import Runtime, flows, run
from tasks.running import noted
from worker import setup
from worker.intake.accept import KEPT, accept_task
from worker.schedule import TICK, tick_every
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings

log = structlog.get_logger()

QUEUE: Final = "keyturn"
DEAD: Final = "keyturn.dead"
"""On RabbitMQ: the exchange, and the queue, of messages that workers refuse."""

TASK_EVENT: Final = "account.event"

TICK_KEPT: Final = timedelta(minutes=1)
"""How long a tick waits for a worker; longer than clocks of machines may differ (tasks.clock)."""


def make_app(settings: Settings, runtime: Callable[[], Runtime] | None = None) -> Celery:
    """The app by these settings. Every flow is a task of the same name, without arguments.

    `runtime` is what tasks are given; by default one that is made at the first task.
    """
    app = Celery("keyturn", broker=settings.broker_url, set_as_current=False)
    app.conf.update(_configuration(settings))
    given = runtime or LazyRuntime(settings)
    for name in flows():
        _register(app, name, given)
    _register_event(app, settings, given)
    return app


class LazyRuntime:
    """The runtime of a worker process, made at its first task: beat and publishers need none."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._made: Runtime | None = None

    def __call__(self) -> Runtime:
        with self._lock:
            if self._made is None:
                self._made = setup.runtime(self._settings)
            return self._made


def _configuration(settings: Settings) -> dict[str, Any]:
    scheme = urlsplit(settings.broker_url).scheme
    of_broker = _on_redis(settings) if scheme in REDIS_SCHEMES else _on_rabbitmq()
    return _common(settings) | of_broker | {"broker_use_ssl": _TLS.get(scheme, False)}


_TLS: Final[dict[str, dict[str, Any]]] = {
    "rediss": {"ssl_cert_reqs": ssl.CERT_REQUIRED},  # kombu itself would believe anybody
    "amqps": {"server_hostname": None},  # None: that of the URL; without it, it is not compared
}


def _common(settings: Settings) -> dict[str, Any]:
    return {
        "task_queues": {QUEUE: {"routing_key": QUEUE}},
        "task_default_queue": QUEUE,
        "task_default_exchange": QUEUE,
        "task_default_routing_key": QUEUE,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_always_eager": False,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_publish_retry": False,
        "task_send_sent_event": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "worker_consumer": "worker.consumer:Consumer",
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": settings.concurrency,
        "worker_pool": "threads",
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_soft_shutdown_timeout": 30.0,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 10,
        "broker_connection_timeout": 5,
        "broker_heartbeat": 10,  # a silent RabbitMQ is noticed after two to three of these
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
        "beat_schedule": {
            TICK: {
                "task": TICK,
                "schedule": tick_every(settings),
                "options": {
                    # So that a worker that was away does not find a day of ticks.
                    "expires": (TICK_KEPT + 2 * tick_every(settings)).total_seconds(),
                    # Beat has one connection, and only a retry makes it anew once it is broken.
                    "retry": True,
                    "retry_policy": {"max_retries": 1, "interval_start": 0},
                    "confirm_timeout": setup.CONFIRM_WITHIN,
                },
            }
        },
        "timezone": "UTC",
        "enable_utc": True,
    }


def _on_redis(settings: Settings) -> dict[str, Any]:
    return {
        "broker_transport": "worker.redis_transport:Transport",
        "broker_transport_options": {
            "visibility_timeout": settings.visibility_timeout.total_seconds(),
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "max_retries": 0,  # of one publish: the schedule rings again
        },
    }


def _on_rabbitmq() -> dict[str, Any]:
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": DEAD}
    return {
        "task_queues": {QUEUE: {"routing_key": QUEUE, "queue_arguments": arguments}},
        "broker_transport_options": {
            "confirm_publish": True,
            "read_timeout": 10,
            "write_timeout": 10,
            "max_retries": 0,
        },
    }


def _register(app: Celery, name: str, runtime: Callable[[], Runtime]) -> None:
    def ring(*args: object, **kwargs: object) -> None:
        if args or kwargs:  # forged or mistaken: nothing is done on the word of a message
            log.error("alarm", alarm="task_with_arguments", task=name)
            return
        run(flows()[name], runtime())

    app.task(ring, name=name, shared=False)


def _register_event(app: Celery, settings: Settings, runtime: Callable[[], Runtime]) -> None:
    def event(task: Task, /, *args: object, **kwargs: object) -> None:
        try:
            with noted(TASK_EVENT, allowed=KEPT):
                accept_task(runtime().database, settings, str(task.request.id), args, kwargs)
        except Exception as error:
            # The message is all there is of this event: the broker keeps it until it is stored.
            log.warning("event_not_stored_yet", error=type(error).__name__)
            raise Reject(type(error).__name__, requeue=is_server_trouble(error)) from None

    app.task(event, name=TASK_EVENT, bind=True, shared=False)
