"""`verify`: one SELECT answers whether a key works and why not; its use is recorded behind it."""

import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from .base import Database
from .forks import begins_anew
from .key_imports import JOB
from .key_text import Peppers, Secret, digests, foreign, parse
from .predicate import HELD_JOINED, WORKS_JOINED
from .recording import Use

T = TypeVar("T")

_SQL = f"""
    SELECT k.id, k.account_id, a.email, k.role, r.permissions, k.expires_at, k.allowed_ips,
           {{now}} AS now,
           CASE WHEN {WORKS_JOINED.replace(":now", "{now}")} THEN NULL
                WHEN k.deleted_at IS NOT NULL THEN 'deleted'
                WHEN {{now}} >= k.expires_at THEN 'expired'
                WHEN {HELD_JOINED} THEN 'account_held'
                WHEN k.status = 'retired' THEN 'retired'
                ELSE 'key_held' END AS reason
    FROM keyturn.api_keys k
    JOIN keyturn.accounts a ON a.id = k.account_id
    LEFT JOIN keyturn.tenants t ON t.id = a.tenant_id
    JOIN keyturn.roles r ON r.name = k.role
    WHERE k.digest {{match}}
"""


@dataclass(frozen=True)
class Verdict:
    """Whether a key may be used now, whose it is and what it may do, or the reason why not.

    `reason` is None where `valid`; otherwise one of REASONS. Of a key that is not known nothing
    else is said. `expires_at` is UTC.
    """

    valid: bool
    reason: str | None = None
    key_id: UUID | None = None
    account_id: UUID | None = None
    account: str | None = None
    role: str | None = None
    permissions: tuple[str, ...] = ()
    expires_at: datetime | None = None

    def __bool__(self) -> bool:
        return self.valid


REASONS = {
    "malformed": "this is not a key's text: it is cut short, mistyped or something else",
    "unknown": "no key has this text",
    "deleted": "the key was deleted",
    "expired": "the key's validity has ended",
    "account_held": "the account is disabled, or the tenant that it is in",
    "key_held": "the key is disabled",
    "retired": "the key was replaced by its successor",
    "ip_not_allowed": "the key may not be used from this address",
}
"""Every reason that `verify` gives, and what it means."""

STOPPED = frozenset({"retired", "deleted", "key_held"})
"""Reasons for which somebody stopped the key itself: who still tries it is worth knowing."""


LOOK_EVERY = 5.0
"""Seconds between two looks whether keys of other shapes than ours were imported."""

_IMPORTED = "SELECT EXISTS (SELECT FROM keyturn.schedule_runs WHERE job = %s)"


class _Line:
    """A connection on which one prepared statement is asked, through libpq itself.

    The driver's cursor does the same in twice the time of this process. What it would add, an
    interruption in the middle by Ctrl-C, comes here after the answer: within statement_timeout.
    """

    def __init__(self, connection: psycopg.Connection, sql: str, peppers: int) -> None:
        """`sql` asks for the digests of so many `peppers`."""
        self.connection = connection
        self.peppers = peppers
        self._rows = Transformer(connection)
        self._answer(connection.pgconn.prepare(b"verify", sql.encode()), ExecStatus.COMMAND_OK)

    def ask(self, values: Sequence[bytes]) -> Any:
        """The first row of the answer, or None. The values are binary, as the server has them."""
        result = self.connection.pgconn.exec_prepared(
            b"verify", values, [Format.BINARY] * len(values), Format.BINARY
        )
        self._answer(result, ExecStatus.TUPLES_OK)
        self._rows.set_pgresult(result, format=Format.BINARY)
        return self._rows.load_row(0, tuple) if result.ntuples else None

    def imported(self) -> bool:
        """Whether keys of other shapes than ours were imported."""
        return self.connection.execute(_IMPORTED, [JOB]).fetchone() == (True,)

    def _answer(self, result: PGresult, expected: ExecStatus) -> None:
        if result.status == expected:
            return
        if self.connection.broken or self.connection.closed:
            raise psycopg.OperationalError("the connection to the server was lost")
        raise psycopg.errors.error_from_result(result)


class Verifier:
    """Answers `verify` on connections of its own, which commit by themselves.

    There is no ping before use: where a connection turns out to be dead, all idle
    ones are let go and the question is asked once more, which is harmless as nothing is written.
    `peppers` may be set to others at any time. A text that is none of our own is looked up only
    where keys of other shapes were imported, which is learned within LOOK_EVERY.
    """

    def __init__(self, database: Database, peppers: Peppers, prefix: str = "kt") -> None:
        """`prefix` is that of our own keys: one that has it, and a typo, is not looked up."""
        self.peppers = peppers
        self._prefix = prefix
        self._imported, self._look_at = False, 0.0
        self._clock = database.clock
        self._connect = database.connect_autocommit
        self._idle: list[_Line] = []
        begins_anew(self)

    def forget_parent(self) -> None:
        """See models.forks."""
        self._idle = []

    def verify(self, text: object, ip: str | None = None) -> tuple[Verdict, Use | None]:
        """The answer, and the use to record: of a key that works, or that was stopped. No lock.

        Raises what the driver raises where the database does not answer: the caller must not take
        that for a yes.
        """
        parsed = parse(text)
        secret = parsed.secret if parsed else self._foreign(text)
        if secret is None:
            return Verdict(False, "malformed"), None
        row = self._select(digests(secret.reveal(), self.peppers))
        if row is None:
            return Verdict(False, "unknown"), None
        key_id, account_id, email, role, permissions, expires_at, allowed, now, reason = row
        if reason is None and allowed and not _allows(allowed, ip):
            reason = "ip_not_allowed"
        verdict = Verdict(
            reason is None, reason, key_id, account_id, email, role, tuple(permissions), expires_at
        )
        if reason is None:
            return verdict, Use(key_id, now, ip)
        return verdict, Use(key_id, now, ip, refused=True) if reason in STOPPED else None

    def close(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for line in idle:
            line.connection.close()

    def _foreign(self, text: object) -> Secret | None:
        """The text of a key that may have been imported; None where none was, or it cannot be."""
        secret = foreign(text, self._prefix)
        if secret is not None and not self._imported and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY
            self._imported = self._asked(_Line.imported, len(self.peppers.versions))
        return secret if self._imported else None

    def _select(self, values: list[bytes]) -> Any:
        peppers = len(values)
        if self._clock:
            values.append(struct.pack("!d", self._clock().timestamp()))
        return self._asked(lambda line: line.ask(values), peppers)

    def _asked(self, ask: Callable[[_Line], T], peppers: int) -> T:
        try:
            return self._once(ask, peppers)
        except psycopg.OperationalError:
            self.close()
            return self._once(ask, peppers)

    def _once(self, ask: Callable[[_Line], T], peppers: int) -> T:
        line = self._take(peppers)
        try:
            answer = ask(line)
        except BaseException:
            line.connection.close()
            raise
        self._idle.append(line)
        return answer

    def _take(self, peppers: int) -> _Line:
        """A connection that nobody else uses until it is put back."""
        try:
            while (line := self._idle.pop()).peppers != peppers:
                line.connection.close()  # from before a pepper came or went
        except IndexError:
            return _Line(self._connect(), self._sql(peppers), peppers)
        return line

    def _sql(self, peppers: int) -> str:
        places = ", ".join(f"${place}" for place in range(1, peppers + 1))
        return _SQL.format(
            now=f"to_timestamp(${peppers + 1}::float8)" if self._clock else "now()",
            match=f"IN ({places})",
        )


def _allows(allowed: Iterable[str], ip: str | None) -> bool:
    """Whether an address is in one of the networks; a key with a list needs an address."""
    if ip is None:
        return False
    try:
        address = ip_address(ip.strip())
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in ip_network(network) for network in allowed)
