"""What imports have in common: what became of each line, and batches of which one bad line falls.

An import is repeated without harm: what is there already is left as it is. So after a death or an
interruption the same import is given again, and goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

from sqlalchemy.exc import DBAPIError

from .base import Database, Tx, is_server_trouble, sqlstate

BATCH = 500
"""Lines that one transaction imports: their locks are held for some hundred milliseconds."""

NO_GRANT = "42501"
"""The SQLSTATE of what the database role may not do: no fault of a line."""

Did = Literal["created", "updated", "unchanged", "differs", "refused"]


class Row(Protocol):
    """What is imported of one line."""

    @property
    def line(self) -> int:
        """Where it stands in the file, from 1."""


R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Outcome:
    """What became of one line. `code` and `message` say why where it was not simply done.

    `differs`: it is there, but not as the line says, and was left so. `refused`: nothing was done.
    """

    line: int
    did: Did
    code: str = ""
    message: str = ""


def refused(row: Row, code: str, message: str) -> Outcome:
    """A line of which nothing was imported."""
    return Outcome(row.line, "refused", code, message)


def run(
    database: Database, rows: Sequence[R], work: Callable[[Tx, Sequence[R]], list[Outcome]]
) -> list[Outcome]:
    """Do one batch in one transaction; where that fails, in halves, down to the one line.

    A line that PostgreSQL does not take even alone is `refused`. Whatever else fails is
    raised: the import is to be given again.
    """
    try:
        return database.run(lambda tx: work(tx, rows))
    except DBAPIError as error:
        if is_server_trouble(error) or sqlstate(error) == NO_GRANT:
            raise
        if len(rows) > 1:
            middle = len(rows) // 2
            return run(database, rows[:middle], work) + run(database, rows[middle:], work)
        reason = f"PostgreSQL does not take it (SQLSTATE {sqlstate(error)}): look at its values"
        return [refused(rows[0], "failed", reason)]
