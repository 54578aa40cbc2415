"""Celery as Keyturn sets it up, with the tasks that Keyturn is compared to.

`celery --app bench.celery_app worker` runs it; the settings come by the environment.
"""

import functools
from typing import Final
from uuid import UUID

from celery import Celery

from models.base import Database
from worker.app import make_app
from worker.logs import configure_logging, keep_celery_out
from worker.settings import load_settings

NOTHING: Final = "bench.nothing"
DISABLE: Final = "bench.disable_key"

# One statement and one transaction for each key: more than that would only be slower.
_DISABLE_KEY = """
    WITH changed AS (
        UPDATE keyturn.api_keys SET status = 'disabled', version = version + 1
        WHERE id = :key AND status = 'active'
        RETURNING id, account_id, version
    ), audited AS (
        INSERT INTO keyturn.audit
            (at, actor, action, account_id, key_id, version, before, after, why)
        SELECT :now, 'keyturn', 'key.disabled', account_id, id, version, 'active', 'disabled',
               'account_held' FROM changed
    )
    INSERT INTO keyturn.outbox
        (id, channel, kind, priority, account_id, payload, created_at, due_at)
    SELECT gen_random_uuid(), 'events', 'key.disabled', 5, account_id,
           jsonb_build_object('account_id', account_id, 'key_ids', jsonb_build_array(id)),
           :now, :now
    FROM changed
"""


def make() -> Celery:
    """Keyturn's own app, by the settings of this process, and the two tasks."""
    settings = load_settings()
    made = make_app(settings)

    @functools.cache
    def database() -> Database:
        return Database(settings.database_url, pool_size=settings.concurrency)

    def nothing() -> None:
        """What Celery costs where there is nothing to do."""

    def disable_key(key_id: str) -> None:
        with database().begin() as tx:
            tx.execute(_DISABLE_KEY, key=UUID(key_id))

    made.task(nothing, name=NOTHING, shared=False)
    made.task(disable_key, name=DISABLE, shared=False)
    return made


def __getattr__(name: str) -> Celery:
    """`app`, made where the worker asks for it: this process may know no settings yet."""
    if name != "app":
        raise AttributeError(name)
    configure_logging("warning")
    keep_celery_out()
    return make()
