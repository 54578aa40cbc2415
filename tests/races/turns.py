"""Two sides, each in a thread of its own, that go on statement by statement as they are told.

A side stops before each of its statements and before each commit. Whoever leads lets one of them go
on and waits until it stands again, has ended, or waits for a lock in PostgreSQL; who waits for a
lock gets its turn back when the other has let go.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import psycopg
from sqlalchemy import event

from models.base import Database, sqlstate

GRACE: Final = 0.004
"""Seconds that a statement may take before PostgreSQL is asked whether it waits for a lock."""
LONGEST: Final = 20.0
"""Seconds after which a schedule has hung."""

Work = Callable[[Database], object]


@dataclass
class Side:
    """One of the two: what it does, and how far it has come."""

    name: str
    database: Database
    work: Work
    state: str = "running"
    """`running`, `standing` before a statement, `blocked` by a lock, or `done`."""
    steps: int = 0
    error: BaseException | None = None
    repeats: list[str] = field(default_factory=list)
    """The SQLSTATEs for which PostgreSQL rolled a transaction of it back."""
    pid: int = 0


class Turns:
    """Who goes when."""

    def __init__(self, watch: psycopg.Connection, *sides: Side) -> None:
        self.sides = sides
        self._watch = watch
        self._changed = threading.Condition()
        self._going: Side | None = None
        self.trace: list[str] = []

    def play(self, prefer: Sequence[tuple[int, int]]) -> None:
        """Let sides go by (which, how many steps), then each to its end."""
        threads = [
            threading.Thread(target=self._begin, args=(side,), daemon=True) for side in self.sides
        ]
        with self._hooks():
            for side, thread in zip(self.sides, threads, strict=True):
                thread.start()
                self._settle(side)
            for which, many in prefer:
                for _ in range(many):
                    if not self._go(self.sides[which]):
                        break
            while any(side.state != "done" for side in self.sides):
                if not any(self._go(side) for side in self.sides):
                    self._look_again()
            for thread in threads:
                thread.join(LONGEST)

    def _go(self, side: Side) -> bool:
        """One step of this side; if a lock stops it, one of the other. False where none can."""
        self._refresh()
        if side.state == "blocked":
            side = next(other for other in self.sides if other is not side)
        if side.state != "standing":
            return False
        self.trace.append(side.name)
        side.steps += 1
        with self._changed:
            side.state = "running"
            self._going = side
            self._changed.notify_all()
        self._settle(side)
        return True

    def _settle(self, side: Side) -> None:
        """Wait until a side stands, has ended, or waits for a lock."""
        deadline = time.monotonic() + LONGEST
        while True:
            with self._changed:
                if self._changed.wait_for(lambda: side.state != "running", GRACE):
                    return
            if side.pid and self._waits(side):
                with self._changed:
                    if side.state == "running":
                        side.state = "blocked"
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{side.name} hangs after {''.join(self.trace)}")

    def _refresh(self) -> None:
        """Who had to wait for a lock may have got it by now."""
        for side in self.sides:
            if side.state == "blocked" and not self._waits(side):
                with self._changed:
                    if side.state == "blocked":
                        side.state = "running"
                self._settle(side)

    def _look_again(self) -> None:
        """Both wait: PostgreSQL is about to end the circle."""
        blocked = [side for side in self.sides if side.state == "blocked"]
        if not blocked:
            return
        with self._changed:
            self._changed.wait_for(
                lambda: any(side.state != "blocked" for side in blocked), timeout=GRACE
            )

    def _waits(self, side: Side) -> bool:
        row = self._watch.execute(
            "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [side.pid]
        ).fetchone()
        return bool(row and row[0])

    def _begin(self, side: Side) -> None:
        try:
            side.work(side.database)
        except BaseException as error:  # shown by whoever leads
            side.error = error
        finally:
            with self._changed:
                side.state = "done"
                self._changed.notify_all()

    def _stand(self, side: Side) -> None:
        """Called in the side's own thread, before each of its steps."""
        with self._changed:
            side.state = "standing"
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._going is side, LONGEST):
                raise AssertionError(f"{side.name} was never let go")
            self._going = None

    @contextmanager
    def _hooks(self) -> Iterator[None]:
        hooks: list[tuple[Any, str, Any]] = []
        for side in self.sides:
            hooks += self._listen(side)
        for target, name, hook in hooks:
            event.listen(target, name, hook)
        try:
            yield
        finally:
            for target, name, hook in hooks:
                event.remove(target, name, hook)

    def _listen(self, side: Side) -> list[tuple[Any, str, Any]]:
        def statement(connection: Any, *_: Any) -> None:
            side.pid = connection.connection.dbapi_connection.info.backend_pid
            self._stand(side)

        def commit(_: Any) -> None:
            self._stand(side)

        def trouble(context: Any) -> None:
            state = sqlstate(context.sqlalchemy_exception) if context.sqlalchemy_exception else ""
            if state:
                side.repeats.append(state)

        engine = side.database.engine
        return [
            (engine, "before_cursor_execute", statement),
            (engine, "commit", commit),
            (engine, "handle_error", trouble),
        ]
