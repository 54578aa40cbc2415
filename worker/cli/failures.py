"""What went wrong, as a command tells it: exit code, code for programs, sentence for people."""

import re
import sys
from dataclasses import dataclass
from urllib.parse import urlsplit

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from models.base import sqlstate
from models.errors import Misconfigured, Refused
from worker.cli import output
from worker.cli.asking import NobodyAnswers

FAILED, USAGE, REFUSED, WRONG_SCHEMA, NO_GRANT = 1, 2, 3, 4, 5

_SERVERS = {"redis": "the Redis or Valkey server", "kombu": "the broker", "amqp": "the broker"}
_NO_GRANT = "42501"  # SQLSTATE insufficient_privilege
_DRIVER = "psycopg"
_URL = "KEYTURN_DATABASE_URL"


@dataclass(frozen=True)
class Failure:
    """Why a command was not done."""

    exit_code: int
    code: str
    message: str


def tell(failure: Failure, *, json: bool) -> None:
    """Print it: as a JSON document on stdout, or as a line on stderr."""
    if json:
        error = {"code": failure.code, "message": failure.message}
        output.answer(True, {"error": error})
    else:
        output.say(f"keyturn: {failure.message}")


def explain(error: Exception) -> Failure | None:
    """The failure that an exception stands for; None for one that is a fault of this program."""
    if isinstance(error, Refused):
        return Failure(REFUSED, error.code, error.message)
    if isinstance(error, NobodyAnswers):
        return Failure(USAGE, "answer_needed", str(error))
    if isinstance(error, UnicodeEncodeError):
        return Failure(USAGE, "not_utf8", "an argument is not UTF-8 text: write it in UTF-8")
    if isinstance(error, Misconfigured):
        return _misconfigured(error)
    if isinstance(error, SQLAlchemyError) or _package(error) == _DRIVER:
        return _database(error)
    if _package(error) in _SERVERS:
        message = f"{_SERVERS[_package(error)]} does not do its part: {_first_line(error)}"
        return Failure(FAILED, "server_failed", message)
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return Failure(FAILED, "failed", str(error))
    return None


def _misconfigured(error: Misconfigured) -> Failure:
    checks = sys.modules.get("worker.checks")  # what was not imported was not raised
    if checks is not None and isinstance(error, checks.WrongSchema):
        return Failure(WRONG_SCHEMA, "wrong_schema", str(error))
    grants = sys.modules.get("models.grants")
    if grants is not None and isinstance(error, grants.NotTheOwner):
        return Failure(NO_GRANT, "grant_missing", str(error))
    return Failure(FAILED, "misconfigured", str(error))


def _database(error: Exception) -> Failure:
    state = sqlstate(error) or getattr(error, "sqlstate", None) or ""
    why = _first_line(error.orig if isinstance(error, DBAPIError) and error.orig else error)
    if state == _NO_GRANT:
        message = f"the database role {_role()!r} lacks a grant: {why}. {_mend(why)}"
        return Failure(NO_GRANT, "grant_missing", message)
    if state and not state.startswith(("08", "28", "3D", "53", "57")):
        return Failure(FAILED, "database_failed", f"the database failed: {why}")
    return Failure(
        FAILED,
        "database_unavailable",
        f"the database does not answer: {why}. Check KEYTURN_DATABASE_URL, or start `keyturn up`",
    )


def _mend(why: str) -> str:
    """How to get the grant: by the catalogue, which says more than the refusal does."""
    from models import grants

    if "role" in why.split():  # "to create role", "to grant role": not about a table of ours
        return "Let a role do it that may (CREATEROLE); --dry-run prints the SQL for it"
    relation = next((name for name in grants.GRANTS if name in re.findall(r"\w+", why)), "")
    try:
        missing = _lacking(relation)
    except (SQLAlchemyError, Misconfigured):
        missing = {}
    if not missing:
        return f"Have the owner of the schema `keyturn` GRANT it, or name the owner in {_URL}"
    role = grants.OPS if grants.OPS in missing else next(iter(missing))
    on = f"keyturn.{relation}" if relation else "the schema keyturn"
    return (
        f"It has no {missing[role]} on {on}, which {role} has: `GRANT {role} TO ...` (`keyturn db "
        f"roles` makes that role), or name another one in {_URL}"
    )


def _lacking(relation: str) -> dict[str, str]:
    from sqlalchemy import create_engine
    from sqlalchemy.pool import NullPool

    from models import grants
    from worker.settings import load_settings

    url = load_settings().database_url
    with create_engine(url, poolclass=NullPool, hide_parameters=True).connect() as connection:
        return grants.lacking(connection, relation)


def _role() -> str:
    from worker.settings import load_settings  # read before, or there would be no such error

    return urlsplit(load_settings().database_url).username or "of this Unix user"


def _package(error: Exception) -> str:
    return type(error).__module__.partition(".")[0]


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
