"""The start of a worker or beat process: logs, settings, and a look at its servers."""

from datetime import timedelta

from celery import Celery
from celery.signals import worker_init, worker_ready, worker_shutting_down

from tasks import running
from tasks.running import noted
from worker import checks, hearing
from worker.app import LazyRuntime, make_app
from worker.logs import configure_logging, keep_celery_out
from worker.pulse import Pulse
from worker.schedule import tick_every
from worker.settings import Settings, load_settings
from worker.watchdog import Watchdog

PATIENCE = timedelta(seconds=20)
"""No run counts as stuck before this, however short the leases: a busy machine is no silent one."""


def boot() -> Celery:
    """The Celery app of this process. Raises Misconfigured where the settings are wrong."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, settings.key_prefix)
    keep_celery_out()
    runtime = LazyRuntime(settings)
    app = make_app(settings, runtime)
    every = tick_every(settings)
    send = hearing.sender(app)
    pulse = Pulse(runtime, every, lambda: hearing.own.ask(send, every))
    worker_init.connect(lambda **_: _begin(settings, app), weak=False)
    worker_ready.connect(lambda **_: pulse.start(), weak=False)
    worker_shutting_down.connect(lambda **_: _end(pulse), weak=False)
    app.Worker = app.subclass_with_self("worker.stopping:Worker")
    return app


def _end(pulse: Pulse) -> None:
    running.ending()
    pulse.stop()


def _begin(settings: Settings, app: Celery) -> None:
    Watchdog(max(2 * settings.lease, PATIENCE), deaf=lambda: hearing.own.deaf).start()
    with noted("worker.start", allowed=PATIENCE.total_seconds()):
        checks.worker(settings, app.conf)
