"""The real thing, in a directory of its own: servers, proxies before them, and Keyturn's processes.

Keyturn reaches broker and database only through the proxies. Whoever watches goes round them.
"""

import os
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import redis
from psycopg import sql

from models.operator import Operator
from models.policy import Policy
from tests.chaos.mailbox import Mailbox
from tests.chaos.proxy import Proxy
from tests.chaos.rabbitmq import RabbitMQ
from tests.chaos.sinks import Sinks
from tests.eventually import eventually
from tests.flows.stack import SECONDS
from worker import setup
from worker.embedded.account import server_account
from worker.embedded.children import Child, make_children, stop_children
from worker.embedded.default_secrets import make_default_secrets
from worker.embedded.home import Home
from worker.embedded.postgres import DATABASE, PORT, USER, Postgres
from worker.embedded.supervisor import ready
from worker.embedded.valkey import Valkey
from worker.setting_fields import PREFIX
from worker.settings import load_settings

Broker = Literal["valkey", "rabbitmq"]

ROLE: Final = "chaos"
SETTINGS: Final[dict[str, str]] = SECONDS | {
    "KEYTURN_CONCURRENCY": "4",
    "KEYTURN_LEASE": "12s",
    "KEYTURN_VISIBILITY_TIMEOUT": "15s",
    "KEYTURN_ROTATION_OVERLAP": "8s",
    "KEYTURN_UNDO_FOR": "6s",
    "KEYTURN_ROTATION_START_EVERY": "2s",
    "KEYTURN_HAND_OVER_EVERY": "1s",
    "KEYTURN_OPERATIONS_EVERY": "1s",
    "KEYTURN_WAVE_KEYS": "3",
    "KEYTURN_INVARIANTS_EVERY": "20s",
    "KEYTURN_MAIL_FROM": "Keyturn <keyturn@chaos.example>",
}
WORKERS: Final = ("worker", "worker2")
_DURABLE: Final = {"fsync": "off", "full_page_writes": "off"}
"""For a crash of the server's process these are as good as the defaults."""
_PASSWORD_FIRST: Final = f"local all {ROLE} scram-sha-256\n"


class Site:
    """Everything that runs, and the ways to reach it that no fault of the proxies touches."""

    def __init__(self, home: Home, broker: Broker, mailbox: Mailbox) -> None:
        self.home = home
        self.broker_kind = broker
        self.mailbox = mailbox
        self.sinks = Sinks(home.path / "sinks")
        self.secrets = make_default_secrets(home)
        self.postgres = Postgres(home, options=_DURABLE)
        self.server: Valkey | RabbitMQ = Valkey(home) if broker == "valkey" else RabbitMQ(home)
        self.database_password = secrets.token_urlsafe(24)
        self.mail_password = secrets.token_urlsafe(24)
        self.database_proxy = Proxy(home.sockets / f".s.PGSQL.{PORT}")
        self.children: dict[str, Child] = {}
        self._stop = threading.Event()
        self._tending = threading.Lock()

    @property
    def broker_url(self) -> str:
        """The broker itself, password included."""
        return self.server.url()

    @property
    def broker_password(self) -> str:
        return self.broker_url.partition("@")[0].rpartition(":")[2]

    def operator(self) -> Operator:
        """The library with connections of its own, round the proxy: the product."""
        policy: Policy = load_settings().policy()
        return Operator(self.postgres.url(), secrets_dir=self.secrets, policy=policy)

    def redis(self) -> "redis.Redis":
        """A client of the broker itself, where that is a Valkey."""
        return redis.Redis.from_url(self.broker_url, socket_timeout=5, socket_connect_timeout=2)

    def start_broker(self) -> None:
        """Start it, so that what it has acknowledged outlives its SIGKILL."""
        self.server.start()
        if self.broker_kind == "valkey":
            with self.redis() as client:
                client.config_set("appendfsync", "always")

    def pid(self, name: str) -> int:
        """The process id of a child that runs now."""
        running = self.children[name].running
        assert running is not None
        return running.identity.pid

    @contextmanager
    def started(self) -> Iterator["Site"]:
        """Servers, proxies and processes, until the block ends."""
        with ExitStack() as stack:
            stack.callback(self.postgres.stop)
            self.postgres.start()
            self._make_role()
            stack.callback(
                self.server.close if isinstance(self.server, RabbitMQ) else self.server.stop
            )
            self.start_broker()
            port = int(self.broker_url.partition("@")[2].partition("/")[0].rpartition(":")[2])
            self.broker_proxy = stack.enter_context(Proxy(("127.0.0.1", port)).running())
            stack.enter_context(self.database_proxy.running())
            stack.enter_context(self.mailbox.running(self.mail_password))
            stack.enter_context(self._environment(port))
            setup.prepare(load_settings())
            stack.enter_context(self._processes())
            yield self

    def _make_role(self) -> None:
        """A role that owns the database, with a password that travels; its writes are logged."""
        rules = self.postgres.data / "pg_hba.conf"
        rules.write_text(_PASSWORD_FIRST + rules.read_text())
        role = sql.Identifier(ROLE)
        with self.postgres.connect() as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    role, sql.Literal(self.database_password)
                )
            )
            connection.execute(
                sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(DATABASE), role)
            )
            for who in (role, sql.Identifier(USER)):
                connection.execute(sql.SQL("ALTER ROLE {} SET log_statement = 'mod'").format(who))

    @contextmanager
    def _environment(self, broker_port: int) -> Iterator[None]:
        """The settings, for this process and its children; nothing of the caller's is seen."""
        kept = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        file = self.sinks.make()
        given = SETTINGS | {
            "KEYTURN_CONFIG": str(file),
            "KEYTURN_DATA_DIR": str(self.home.path),
            "KEYTURN_SECRETS_DIR": str(self.secrets),
            "KEYTURN_DATABASE_URL": f"postgresql://{ROLE}:{self.database_password}"
            f"@127.0.0.1:{self.database_proxy.port}/{DATABASE}",
            "KEYTURN_BROKER_URL": self.broker_url.replace(
                f":{broker_port}", f":{self.broker_proxy.port}"
            ),
            "KEYTURN_SMTP_URL": self.mailbox.url,
        }
        for name in kept:
            del os.environ[name]
        os.environ.update(given)
        try:
            yield
        finally:
            for name in given:
                del os.environ[name]
            os.environ.update(kept)

    @contextmanager
    def _processes(self) -> Iterator[None]:
        """Two workers, beat and intake, each started again when it dies."""
        made = {child.name: child for child in make_children(self.home)}
        command = made["worker"].command
        second = Child(self.home, "worker2", [*command[:-1], f"second-{command[-1]}"])
        self.children = {**made, second.name: second}
        tender = threading.Thread(target=self._tend, name="supervisor")
        with self.operator() as operator:
            with operator.database.begin() as tx:
                since = tx.now()
            for child in self.children.values():
                child.start()
            tender.start()
            try:
                eventually(lambda: ready(operator.database, since), within=60)
                yield
            finally:
                self._stop.set()
                tender.join()
                self._wake_all()
                stop_children(list(self.children.values()))

    def _tend(self) -> None:
        while not self._stop.wait(0.1):
            for child in self.children.values():
                child.tend()

    def _wake_all(self) -> None:
        for name in self.children:
            with suppress(ProcessLookupError):
                os.kill(self.pid(name), signal.SIGCONT)


@contextmanager
def directory() -> Iterator[Home]:
    """A data directory that the servers' account reaches; removed unless the block fails."""
    path = Path(tempfile.mkdtemp(prefix="keyturn-chaos-"))
    path.chmod(0o711)
    yield Home(path, server_account())
    shutil.rmtree(path, ignore_errors=True)
