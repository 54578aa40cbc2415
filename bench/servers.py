"""The servers of one run: PostgreSQL and Valkey as `make run` starts them, durable, and our own."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from models import migrations, roles
from models.base import Database
from models.keyring import Keyring
from models.policy import Policy
from tasks import Runtime
from worker.embedded.default_secrets import make_default_secrets
from worker.embedded.home import Home, find_home
from worker.embedded.postgres import Postgres
from worker.embedded.valkey import Valkey
from worker.setting_fields import PREFIX
from worker.settings import Settings, load_settings
from worker.streams import connect

Fill = Callable[[psycopg.Connection], None]


class Servers:
    """Two running servers, and databases that are copied from a seed."""

    def __init__(self, home: Home, postgres: Postgres, valkey: Valkey, secrets: Path) -> None:
        self.home = home
        self.postgres = postgres
        self.valkey = valkey
        self.secrets = secrets
        self._numbers = itertools.count(1)

    @contextmanager
    def seed(self, fill: Fill) -> Iterator[str]:
        """A migrated database that `fill` has filled, vacuumed and analysed; yields its name."""
        with self._database("seed", "template1") as name:
            migrations.upgrade(self.postgres.url(name))
            database = Database(self.postgres.url(name), pool_size=0)
            database.run(lambda tx: roles.sync(tx, Settings.model_construct().roles))
            with self.postgres.connect(name) as connection:
                fill(connection)
                connection.execute("VACUUM ANALYZE")
            yield name

    @contextmanager
    def copy(self, seed: str) -> Iterator[str]:
        """A copy of a seed, for one side of one round; yields its URL.

        Every copy begins alike: its pages were just read, and a checkpoint has just ended.
        """
        with self._database("copy", seed) as name:
            with self.postgres.connect() as connection:
                connection.execute("CHECKPOINT")
            yield self.postgres.url(name)

    @contextmanager
    def runtime(self, url: str, policy: Policy | None = None) -> Iterator[Runtime]:
        """What the worker gives to a task, without channels, and with nobody to ring for."""
        database = Database(url)
        yield Runtime(database, policy or Policy(), Keyring.from_directory(self.secrets), {})
        database.close()

    @contextmanager
    def environment(self, url: str, broker: int, config: str = "") -> Iterator[Settings]:
        """Let this process and its children find a database and a broker's database; emptied.

        Nothing of the caller's own settings is seen, but `config`, the text of a `keyturn.toml`.
        """
        kept = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        written = self.home.path / "keyturn.toml"
        written.write_text(config)
        given = {
            "CONFIG": str(written),
            "DATA_DIR": str(self.home.path),
            "DATABASE_URL": url,
            "BROKER_URL": self.valkey.url(broker),
            "SECRETS_DIR": str(self.secrets),
        }
        with connect(self.valkey.url(broker)) as redis:
            redis.flushdb()
        for name in kept:
            del os.environ[name]
        os.environ.update({f"{PREFIX}{name}": value for name, value in given.items()})
        try:
            yield load_settings()
        finally:
            for name in given:
                del os.environ[f"{PREFIX}{name}"]
            os.environ.update(kept)

    @contextmanager
    def _database(self, kind: str, template: str) -> Iterator[str]:
        name = f"bench_{kind}_{next(self._numbers)}"
        names = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
        with self.postgres.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {name} TEMPLATE {template}").format(**names)
            )
        try:
            yield name
        finally:
            with self.postgres.connect() as connection:
                connection.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**names))


@contextmanager
def started() -> Iterator[Servers]:
    """Servers beside the data of `make run`, so on the same disk; all is removed at the end."""
    beside = find_home()
    beside.make()
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=beside.path))
    path.chmod(0o711)
    home = Home(path, beside.account)
    secrets = make_default_secrets(home)
    postgres, valkey = Postgres(home), Valkey(home)
    try:
        postgres.start()
        valkey.start()
        yield Servers(home, postgres, valkey, secrets)
    finally:
        valkey.stop()
        postgres.stop()
        shutil.rmtree(path)
