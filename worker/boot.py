"""The start of a worker or beat process: logs, settings, and a look at its servers."""

from celery import Celery
from celery.signals import worker_init

from worker import checks
from worker.app import make_app
from worker.logs import configure_logging, keep_celery_out
from worker.settings import load_settings


def boot() -> Celery:
    """The Celery app of this process. Raises Misconfigured where the settings are wrong."""
    settings = load_settings()
    configure_logging(settings.log_level, settings.log_format, settings.key_prefix)
    keep_celery_out()
    app = make_app(settings)
    worker_init.connect(lambda **_: checks.worker(settings), weak=False)
    return app
