"""Worker, beat and intake as `keyturn up` starts them, on a database of the bench."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from models.base import Database
from worker.embedded.children import make_children, stop_children
from worker.embedded.supervisor import ready
from worker.settings import Settings

from .servers import Servers
from .task_queue import until


@contextmanager
def running(servers: Servers, settings: Settings) -> Iterator[None]:
    """All three, with a first job done; they end with the block."""
    with ExitStack() as stack:
        database = Database(settings.database_url, pool_size=1)
        stack.callback(database.close)
        with database.begin() as tx:
            since = tx.now()
        children = make_children(servers.home)
        stack.callback(stop_children, children)
        for child in children:
            child.start()
        until(lambda: ready(database, since))
        until(lambda: _receives(database))
        yield


def _receives(database: Database) -> bool:
    with database.begin() as tx:
        return bool(
            tx.scalar(
                "SELECT EXISTS (SELECT FROM keyturn.schedule_runs WHERE job = 'intake.stream')"
            )
        )
