"""The Celery app: how rings travel. What they ring for is in `tasks`."""

import threading
from typing import Any
from urllib.parse import urlsplit

import structlog
from celery import Celery, Task

from tasks import Runtime, flows, run
from worker import setup
from worker.intake.accept import accept_task
from worker.schedule import TICK, tick_every
from worker.setting_types import REDIS_SCHEMES
from worker.settings import Settings

log = structlog.get_logger()

QUEUE = "keyturn"
TASK_EVENT = "account.event"


def make_app(settings: Settings) -> Celery:
    """The app by these settings. Every flow is a task of the same name, without arguments."""
    app = Celery("keyturn", broker=settings.broker_url, set_as_current=False)
    app.conf.update(_configuration(settings))
    runtime = _Runtime(settings)
    for name in flows():
        _register(app, name, runtime)
    _register_event(app, settings, runtime)
    return app


class _Runtime:
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
    redis = urlsplit(settings.broker_url).scheme in REDIS_SCHEMES
    arguments = {} if redis else {"x-queue-type": "quorum"}
    return {
        "task_queues": {QUEUE: {"routing_key": QUEUE, "queue_arguments": arguments}},
        "task_default_queue": QUEUE,
        "task_default_exchange": QUEUE,
        "task_default_routing_key": QUEUE,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_acks_on_failure_or_timeout": True,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_publish_retry": False,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_backend": None,
        "worker_prefetch_multiplier": 1,
        "worker_concurrency": settings.concurrency,
        "worker_pool": "threads",
        "worker_send_task_events": False,
        "worker_enable_remote_control": False,
        "worker_hijack_root_logger": False,
        "worker_soft_shutdown_timeout": 5.0,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_pool_acquire_timeout": 10,
        "broker_connection_timeout": 5,
        "broker_transport_options": _redis_options(settings) if redis else _amqp_options(),
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
        "beat_schedule": {
            TICK: {
                "task": TICK,
                "schedule": tick_every(settings),
                "options": {"expires": tick_every(settings).total_seconds() * 2},
            }
        },
        "timezone": "UTC",
        "enable_utc": True,
    }


def _redis_options(settings: Settings) -> dict[str, Any]:
    return {
        "visibility_timeout": settings.visibility_timeout.total_seconds(),
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 10,
        "socket_connect_timeout": 5,
        "socket_keepalive": True,
        "health_check_interval": 25,
    }


def _amqp_options() -> dict[str, Any]:
    return {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}


def _register(app: Celery, name: str, runtime: _Runtime) -> None:
    def ring(*args: object, **kwargs: object) -> None:
        if args or kwargs:  # forged or mistaken: nothing is done on the word of a message
            log.error("alarm", alarm="task_with_arguments", task=name)
            return
        run(flows()[name], runtime())

    app.task(ring, name=name)


def _register_event(app: Celery, settings: Settings, runtime: _Runtime) -> None:
    def event(task: Task, *args: object, **kwargs: object) -> None:
        accept_task(runtime().database, settings, str(task.request.id), args, kwargs)

    app.task(event, name=TASK_EVENT, bind=True)
