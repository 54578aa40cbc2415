"""A PostgreSQL of our own: unprivileged, on a socket in a private directory, its data kept."""

import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql

from models.errors import Misconfigured

from .binaries import PostgresBinaries, find_postgres
from .home import Home
from .process import EmbeddedFailed, Patience, PidFile, Running, end_recorded, spawn

USER: Final = "keyturn"
DATABASE: Final = "keyturn"
PORT: Final = "5432"  # a part of the socket's name; no TCP port is opened
START_WITHIN: Final = 60.0  # seconds: a recovery after a crash takes its time
STOP: Final[Patience] = (
    (signal.SIGINT, 4.0),  # "fast": running transactions are rolled back
    (signal.SIGQUIT, 1.0),
    (signal.SIGKILL, 1.0),
)
# Nothing of the caller's environment: PGDATA, PGPORT or a locale would lead elsewhere.
_ENVIRONMENT: Final = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


class Postgres:
    """One server with its data in `home`; `start` and `stop` may be repeated.

    Whoever may enter its socket's directory (mode 0700) is trusted: the servers' account and root.
    """

    def __init__(
        self,
        home: Home,
        *,
        pg_bin: Path | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`options` are settings of the server, such as {"fsync": "off"}."""
        self.home = home
        self.data = home.path / "postgres"
        self.pg_bin = pg_bin
        self.options = {"timezone": "UTC", "log_timezone": "UTC", **(options or {})}
        self.running: Running | None = None

    def url(self, database: str = DATABASE) -> str:
        """The address of a database for SQLAlchemy and for libpq."""
        host = quote(str(self.home.sockets), safe="/")
        return f"postgresql://{USER}@/{quote(database)}?host={host}&port={PORT}"

    def start(self) -> None:
        """Run the server and have the database; ends one that an earlier start left over.

        Raises Misconfigured or EmbeddedFailed.
        """
        pid_file = PidFile(self.home.own_directory("pids") / "postgres.json")
        end_recorded([pid_file], STOP)
        binaries = find_postgres(self.home, self.pg_bin)
        self.home.server_directory(self.home.sockets)
        if not self.data.is_dir():
            self._make_data(binaries)
        self._check_version(binaries)
        self.running = spawn(
            self._command(binaries),
            pid_file=pid_file,
            log=self.home.own_directory("log") / "postgres.log",
            account=self.home.account,
            env=_ENVIRONMENT,
            cwd=self.home.path,
        )
        self._wait(self.running)
        self._make_database()

    def alive(self) -> bool:
        return self.running is not None and self.running.alive()

    def stop(self) -> None:
        """End the server in at most six seconds; what was committed stays."""
        if self.running:
            self.running.stop(STOP)
            self.running = None

    def set_for_database(self, name: str, value: str, database: str = DATABASE) -> None:
        """Make `name` a setting that every new session of the database starts with."""
        statement = sql.SQL("ALTER DATABASE {} SET {} = {}").format(
            sql.Identifier(database), sql.Identifier(name), sql.Literal(value)
        )
        with self.connect() as connection:
            connection.execute(statement)

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        """A session of the superuser that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def _make_data(self, binaries: PostgresBinaries) -> None:
        """Initialise beside the final place: an interrupted start leaves nothing half done."""
        new = self.data.with_suffix(".new")
        command = [binaries.path("initdb"), "-D", str(new), "-U", USER]
        command += ["--auth=trust", "--encoding=UTF8", "--no-locale", "--no-instructions"]
        account = self.home.account
        if new.exists():
            shutil.rmtree(new)
        self.home.server_directory(new)
        made = subprocess.run(
            command,
            env=_ENVIRONMENT,
            cwd=self.home.path,
            capture_output=True,
            text=True,
            check=False,
            **(account.arguments() if account else {}),
        )
        if made.returncode:
            raise EmbeddedFailed(f"initdb failed in {self.home.path}:\n{made.stderr.strip()}")
        new.rename(self.data)

    def _check_version(self, binaries: PostgresBinaries) -> None:
        major = (self.data / "PG_VERSION").read_text().strip()
        if major != str(binaries.major):
            raise Misconfigured(
                f"the data in {self.data} is PostgreSQL {major}'s, and {binaries.directory} holds "
                f"version {binaries.major}: set KEYTURN_PG_BIN to the directory of a PostgreSQL "
                f"{major}, or KEYTURN_DATA_DIR to a new directory"
            )

    def _command(self, binaries: PostgresBinaries) -> list[str]:
        fixed = {"listen_addresses": "", "unix_socket_permissions": "0700"}
        command = [binaries.path("postgres"), "-D", str(self.data), "-p", PORT]
        command += ["-k", str(self.home.sockets)]
        for name, value in {**self.options, **fixed}.items():
            command += ["-c", f"{name}={value}"]
        return command

    def _wait(self, running: Running) -> None:
        deadline = time.monotonic() + START_WITHIN
        while not self._answers(running):
            if not running.alive() or time.monotonic() > deadline:
                self.stop()
                raise EmbeddedFailed(
                    f"PostgreSQL does not start in {self.home.path}; the end of {running.log}:\n"
                    f"{running.last_words()}"
                )
            time.sleep(0.02)

    def _answers(self, running: Running) -> bool:
        """Whether this very server takes connections: an older one may have the socket."""
        try:
            owner = (self.data / "postmaster.pid").read_text().splitlines()[:1]
            if owner != [str(running.identity.pid)]:
                return False
            self.connect().close()
        except (FileNotFoundError, psycopg.OperationalError):
            return False
        return True

    def _make_database(self) -> None:
        with self.connect() as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE])
            if not found.rowcount:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
