"""Brings a database to this code's schema, and says whether it is there."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from .. import tables as _tables  # noqa: F401  (they register with Base)
from ..base import SCHEMA, Base

_LOCK = 0x6B657974  # "keyt": two migrating processes take turns


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

    Safe to run twice and from two processes at once; nothing outside the schema is touched.
    """
    engine = create_engine(database_url, poolclass=NullPool, hide_parameters=True)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        command.upgrade(_config(connection), revision)


def current(connection: Connection) -> str | None:
    """The revision that the database is at, or None before the first `keyturn migrate`."""
    options = {"version_table_schema": SCHEMA}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def differences(connection: Connection) -> list[object]:
    """What a new migration would change: empty where the tables and the migrations agree."""
    from alembic.autogenerate import compare_metadata

    context = MigrationContext.configure(
        connection,
        opts={
            "version_table_schema": SCHEMA,
            "include_schemas": True,
            "include_name": lambda name, kind, parents: kind != "schema" or name == SCHEMA,
        },
    )
    return list(compare_metadata(context, Base.metadata))
