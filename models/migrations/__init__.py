"""Brings a database to this code's schema, and says whether it is there."""

import time
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from .. import grants
from .. import operation_tables as _operations  # noqa: F401  (they register with Base)
from .. import record_tables as _records  # noqa: F401  (they register with Base)
from .. import tenant_tables as _tenants  # noqa: F401  (they register with Base)
from ..base import SCHEMA, Base, may_repeat

_LOCK = 0x6B657974  # "keyt": two migrating processes take turns
TRIES = 20
PAUSE = 0.5  # seconds, in which workers finish what they had begun


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["metadata"] = Base.metadata
    config.attributes["connection"] = connection
    return config


def head() -> str:
    """The revision that this code is written for."""
    revision = ScriptDirectory.from_config(_config()).get_current_head()
    assert revision is not None
    return revision


def upgrade(database_url: str, revision: str = "head") -> None:
    """Create the schema `keyturn` if it is not there and bring it to `revision`.

    Safe to run twice, from two processes at once, and under load: it is one transaction, made anew
    where it and a worker waited for each other. Nothing outside the schema is touched. At the
    newest revision the grants of `models.grants` are given anew to those of its roles that exist.
    """
    engine = create_engine(database_url, poolclass=NullPool, hide_parameters=True)
    for tries_left in reversed(range(TRIES)):
        try:
            with engine.begin() as connection:
                _upgrade(connection, revision)
            return
        except DBAPIError as error:
            if not tries_left or not may_repeat(error):
                raise
        time.sleep(PAUSE)


def _upgrade(connection: Connection, revision: str) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    # What waits for a table's lock holds up everybody who comes after it.
    connection.execute(text("SET LOCAL lock_timeout = '3s'"))
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
    command.upgrade(_config(connection), revision)
    if revision == "head":  # of an older schema the grants are not known
        grants.reapply(connection)


def differences(database_url: str) -> list[object]:
    """What a new migration would change: empty where the tables and the migrations agree."""
    # Alembic leaves out a schema that the search path begins with, as ours does for a user
    # named keyturn.
    engine = create_engine(
        database_url, poolclass=NullPool, connect_args={"options": "-c search_path=public"}
    )
    options = {
        "include_schemas": True,
        "include_name": lambda name, kind, parents: kind != "schema" or name == SCHEMA,
        "version_table_schema": SCHEMA,
    }
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, Base.metadata))
