"""Runs everything on this machine: servers, worker, beat and intake, until it is told to stop."""

import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from typing import Final

from sqlalchemy.exc import DBAPIError

from models import schedule_runs
from models.base import Database
from models.errors import Misconfigured
from worker import setup
from worker.intake import main as intake
from worker.schedule import TICK
from worker.settings import Settings, load_settings

from .children import Child, end_orphans, make_children, stop_children
from .default_secrets import make_default_secrets
from .home import Home, find_home
from .postgres import Postgres
from .process import EmbeddedFailed, Identity
from .state import Embedded, announce, withdraw
from .valkey import Valkey

READY_WITHIN: Final = 120.0  # seconds from the start of the children
_TICK: Final = 0.1  # seconds between two looks at what runs

Server = Postgres | Valkey
Tell = Callable[[str], None]


class Supervisor:
    """One `keyturn up`: what it starts, it tends and stops again."""

    def __init__(self, settings: Settings, tell: Tell) -> None:
        """`tell` gets what an operator should know, such as the death of a child."""
        self.home = find_home(settings.data_dir)
        self.settings = settings
        self.tell = tell
        self.stopping = threading.Event()
        self.servers: list[Server] = []
        self.children: list[Child] = []

    def run(self, when_ready: Callable[[Home, Settings], None]) -> None:
        """Start everything, call `when_ready` once work gets done, and return when `stopping`.

        Whatever was started is stopped on the way out, the last first: worker, beat and intake,
        then Valkey, then PostgreSQL. Raises Misconfigured or EmbeddedFailed.
        """
        self.home.make()
        with ExitStack() as stack:
            stack.enter_context(_only_one(self.home))
            end_orphans(self.home)
            self._start_servers(stack)
            if self.stopping.is_set():
                return
            setup.prepare(self.settings)
            stack.callback(withdraw, self.home)
            self._announce()
            database = setup.database(self.settings, pool_size=1, name="keyturn up")
            stack.callback(database.close)
            self._start_children(stack)
            if self._wait_until_ready(database):
                when_ready(self.home, self.settings)
                self._tend_until_stopped()

    def _start_servers(self, stack: ExitStack) -> None:
        """Start what no setting names, and name it to settings and children by the environment."""
        given = self.settings
        variables = {"KEYTURN_DATA_DIR": str(self.home.path)}
        if given.given_secrets_dir is None:
            variables["KEYTURN_SECRETS_DIR"] = str(make_default_secrets(self.home))
        if given.given_database_url is None:
            postgres = Postgres(self.home, pg_bin=given.pg_bin)
            self._start(postgres, stack)
            secrets = str(given.given_secrets_dir or self.home.secrets)
            postgres.set_for_database("keyturn.secrets_dir", secrets)
            variables["KEYTURN_DATABASE_URL"] = postgres.url()
        if given.given_broker_url is None:
            valkey = Valkey(self.home)
            self._start(valkey, stack)
            variables["KEYTURN_BROKER_URL"] = valkey.url()
        os.environ.update(variables)
        self.settings = load_settings()

    def _start(self, server: Server, stack: ExitStack) -> None:
        stack.callback(server.stop)
        server.start()
        self.servers.append(server)

    def _announce(self) -> None:
        """Tell commands in other terminals what runs; anew after a server was started again."""
        announce(
            Embedded(
                self.home.path,
                self.settings.database_url,
                self.settings.broker_url,
                self.settings.secrets_dir,
            ),
            [server.running.identity for server in self.servers if server.running] or [_myself()],
        )

    def _start_children(self, stack: ExitStack) -> None:
        self.children = make_children(self.home)
        stack.callback(stop_children, self.children)
        for child in self.children:
            child.start()

    def _wait_until_ready(self, database: Database) -> bool:
        """True once worker and intake have worked from now on; False when told to stop."""
        since = _database_time(database)
        if database.on_commit:
            database.on_commit({TICK})  # beat would ring too, some seconds later
        deadline = time.monotonic() + READY_WITHIN
        while not self._tend_once():
            if ready(database, since) and all(
                c.running and c.running.alive() for c in self.children
            ):
                return True
            if time.monotonic() > deadline:
                raise EmbeddedFailed(
                    f"no job was done within {READY_WITHIN:.0f} s: look into the logs in "
                    f"{self.home.path / 'log'}"
                )
        return False

    def _tend_until_stopped(self) -> None:
        while not self._tend_once():
            pass

    def _tend_once(self) -> bool:
        """Start again what died, wait for a moment; says whether it is time to stop."""
        for server in self.servers:
            if not server.alive():
                self._restart(server)
        for child in self.children:
            message = child.tend()
            if message:
                self.tell(message)
        return self.stopping.wait(_TICK)

    def _restart(self, server: Server) -> None:
        before = server.url()
        self.tell(f"{type(server).__name__} ended and starts again")
        server.start()
        if server.url() != before:
            raise EmbeddedFailed(
                f"{type(server).__name__} had to move to another address: start `keyturn up` again"
            )
        self._announce()


def ready(database: Database, since: datetime) -> bool:
    """Whether a ring came through the broker to a worker, and intake listened, after `since`."""
    try:
        with database.begin() as tx:
            runs = schedule_runs.listed(tx)
    except DBAPIError:
        return False  # the server died meanwhile: it is started again
    recent = [run for run in runs if run.finished_at and run.finished_at > since]
    done = {run.job for run in recent if not run.error}
    return done >= {TICK, intake.JOB}


def _database_time(database: Database) -> datetime:
    with database.begin() as tx:
        return tx.now()


def _myself() -> Identity:
    identity = Identity.of(os.getpid())
    assert identity is not None, "this process runs"
    return identity


@contextmanager
def _only_one(home: Home) -> Iterator[None]:
    """Refuse a second supervisor on one directory. The lock dies with its process."""
    with (home.path / "supervisor.lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Misconfigured(
                f"Keyturn already runs on {home.path} (process {file.read().strip()}): use that "
                "one, or stop it, or set KEYTURN_DATA_DIR to another directory"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
