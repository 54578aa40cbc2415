"""What a command would do, or why it would be refused: it is carried out, and undone."""

from collections.abc import Callable
from typing import TypeVar

from .base import Database, Tx

T = TypeVar("T")


class Undoing(Database):
    """The same database, in which nothing stays of what `run` does: nothing is committed, rung for
    or alarmed about. What it raises is what the real work would raise."""

    def __init__(self, database: Database) -> None:
        self.__dict__.update(database.__dict__)

    def run(self, work: Callable[[Tx], T], *, tries: int = 5) -> T:
        """Run `work`, answer as it does, and undo it."""

        def undone(tx: Tx) -> T:
            savepoint = tx.savepoint()
            answer = work(tx)
            tx.write_added()
            tx.undo(savepoint)
            tx.rings.clear()
            tx.alarms.clear()
            return answer

        return super().run(undone, tries=tries)
