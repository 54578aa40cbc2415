"""Where a flow can break, and what breaks there: every statement, commit, publish and call."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, event

from tests.eventually import eventually

STATEMENT, COMMIT, PUBLISH, CALL = "statement", "commit", "publish", "call"
KINDS: Final = (STATEMENT, COMMIT, PUBLISH, CALL)


class Broken(Exception):
    """What the matrix raises where a part of the flow is to fail."""


class Died(BaseException):
    """The process ends here: no `except Exception` sees it, and nothing after it is done."""


@dataclass(frozen=True)
class Point:
    """A place that a flow passes, by its number from 0 in one undisturbed run."""

    number: int
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind} {self.number} ({self.what})"


@dataclass(frozen=True)
class Fault:
    """What happens at a point, just `before` or just `after` it.

    `error`: an exception nobody expects. `lost`: the server ends the session; after a point, what
    was done is done and the answer is lost. `repeat`: the server asks to run the transaction again
    (SQLSTATE 40001). `death`: the process ends, as far as one process can play that. `kill`: it
    ends in earnest, by SIGKILL.
    """

    how: str
    when: str

    def __str__(self) -> str:
        return f"{self.how} {self.when}"

    def fits(self, point: Point) -> bool:
        """Whether this is something of its own at such a point.

        A process that dies at a statement leaves what one leaves that dies before the commit:
        nothing of the transaction. So does a session that ends just after a statement, and before
        whatever comes next. Only a server asks to repeat, and before the commit all of the work
        was done that will be done again.
        """
        if self.how == "repeat":
            return point.kind == COMMIT
        if point.kind == STATEMENT:
            return self.how == "error" or (self.how == "lost" and self.when == "before")
        return True


FAULTS: Final = (
    *(Fault(how, when) for how in ("error", "lost", "death") for when in ("before", "after")),
    Fault("repeat", "before"),
)


class Points:
    """Counts the points that a flow passes, and breaks it at one of them if told so."""

    def __init__(self, server: psycopg.Connection) -> None:
        """`server` is a session of its own, by which others are ended."""
        self._server = server
        self._fault: Fault | None = None
        self._at = -1
        self._statement = ""
        self._counting = False
        self._dead = False
        self.passed: list[Point] = []
        self.hit: Point | None = None

    @contextmanager
    def counted(self, fault: Fault | None = None, at: int = -1) -> Iterator[None]:
        """Count what is passed in the block; `fault` happens at the point of number `at`."""
        self.passed, self.hit = [], None
        self._fault, self._at = fault, at
        self._counting = True
        try:
            yield
        finally:
            self._counting = self._dead = False

    def counts(self) -> Counter[str]:
        """How many points of each kind were passed."""
        return Counter(point.kind for point in self.passed)

    def revive(self) -> None:
        """The process is started anew, and goes on passing points."""
        self._dead = False

    def watch(self, engine: Engine) -> None:
        """Make every statement and commit of an engine a point."""
        event.listen(engine, "before_cursor_execute", self._before_statement)
        event.listen(engine, "after_cursor_execute", self._after_statement)
        commit = engine.dialect.do_commit

        def do_commit(connection: Any) -> None:
            self.before(COMMIT, f"after {self._statement}", connection.driver_connection)
            commit(connection)
            self.after(connection.driver_connection)

        engine.dialect.do_commit = do_commit  # type: ignore[method-assign,assignment]

    def before(self, kind: str, what: str, session: psycopg.Connection | None = None) -> None:
        """A point begins; `session` is the one that it uses, all of them where it uses none."""
        if not self._counting:
            return
        if self._dead:
            raise Died
        self.passed.append(Point(len(self.passed), kind, what))
        self._break("before", session)

    def after(self, session: psycopg.Connection | None = None) -> None:
        """The last point is done."""
        if self._counting:
            self._break("after", session)

    def _before_statement(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        self._statement = " ".join(statement.split())[:60]
        self.before(STATEMENT, self._statement, cursor.connection)

    def _after_statement(self, _: Any, cursor: Any, *__: Any) -> None:
        self.after(cursor.connection)

    def _break(self, when: str, session: psycopg.Connection | None) -> None:
        point, fault = self.passed[-1], self._fault
        if fault is None or fault.when != when or point.number != self._at:
            return
        self.hit, self._fault = point, None  # once
        if fault.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.how == "death":
            self._dead = True
            raise Died(str(point))
        if fault.how == "repeat":
            raise psycopg.errors.SerializationFailure("the matrix asks to repeat the transaction")
        if fault.how == "error":
            raise Broken(str(point))
        self._lose(when, session)

    def _lose(self, when: str, session: psycopg.Connection | None) -> None:
        """End the session on the server. Before a point the driver finds that out by itself."""
        mine = "true" if session is None else f"pid = {session.info.backend_pid}"
        others = f"""
            FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid() AND {mine}
        """
        self._server.execute(f"SELECT pg_terminate_backend(pid) {others}".encode())
        eventually(
            lambda: self._server.execute(f"SELECT count(*) {others}".encode()).fetchone() == (0,),
            every=0.001,
        )
        if when == "after" and session is not None:
            session.close()
            raise psycopg.OperationalError("the answer is lost")
        if when == "after":
            raise ConnectionError("the answer is lost")
