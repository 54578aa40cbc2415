"""Which schema this code is written for, known without Alembic: every command looks first."""

from sqlalchemy import Connection, text

from .base import SCHEMA
from .errors import Misconfigured

EXPECTED = "0012"
"""The newest migration; a test holds it against the migrations themselves."""


class WrongSchema(Misconfigured):
    """The database's schema is older or newer than this code."""


def current(connection: Connection) -> str | None:
    """The revision that the database is at, or None before the first `keyturn migrate`."""
    there = text("SELECT to_regclass(:table) IS NOT NULL")
    if not connection.scalar(there, {"table": f"{SCHEMA}.alembic_version"}):
        return None
    revision: str | None = connection.scalar(
        text(f"SELECT version_num FROM {SCHEMA}.alembic_version")
    )
    return revision


def check(connection: Connection) -> None:
    """Raise WrongSchema, with the mend, unless the database is at EXPECTED."""
    found = current(connection)
    if found == EXPECTED:
        return
    if found is None:
        raise WrongSchema("the database has no schema yet: run `keyturn migrate`")
    mend = "upgrade Keyturn" if found > EXPECTED else "run `keyturn migrate`"
    raise WrongSchema(
        f"the database's schema is {found}, this Keyturn is written for {EXPECTED}: {mend}"
    )
