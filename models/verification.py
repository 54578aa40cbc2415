"""`verify`: one SELECT answers whether a key works and why not; its use is recorded behind it."""

import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any
from uuid import UUID

import psycopg
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGresult

from .base import Database
from .key_text import Peppers, digests, parse
from .predicate import WORKS
from .recording import Use

_SQL = f"""
    SELECT k.id, k.account_id, a.email, k.role, r.permissions, k.expires_at, k.allowed_ips,
           {{now}} AS now,
           CASE WHEN {WORKS.replace(":now", "{now}")} THEN NULL
                WHEN k.deleted_at IS NOT NULL THEN 'deleted'
                WHEN {{now}} >= k.expires_at THEN 'expired'
                WHEN a.held THEN 'account_held'
                WHEN k.status = 'retired' THEN 'retired'
                ELSE 'key_held' END AS reason
    FROM keyturn.api_keys k
    JOIN keyturn.accounts a ON a.id = k.account_id
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
    "account_held": "the account is disabled",
    "key_held": "the key is disabled",
    "retired": "the key was replaced by its successor",
    "ip_not_allowed": "the key may not be used from this address",
}
"""Every reason that `verify` gives, and what it means."""


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
    `peppers` may be set to others at any time.
    """

    def __init__(self, database: Database, peppers: Peppers) -> None:
        self.peppers = peppers
        self._clock = database.clock
        self._connect = database.connect_autocommit
        self._idle: list[_Line] = []
        self._process = os.getpid()

    def verify(self, text: object, ip: str | None = None) -> tuple[Verdict, Use | None]:
        """The answer, and the use to record where the key works. Takes no lock.

        Raises what the driver raises where the database does not answer: the caller must not take
        that for a yes.
        """
        parsed = parse(text)
        if parsed is None:
            return Verdict(False, "malformed"), None
        row = self._select(digests(parsed.secret.reveal(), self.peppers))
        if row is None:
            return Verdict(False, "unknown"), None
        key_id, account_id, email, role, permissions, expires_at, allowed, now, reason = row
        if reason is None and allowed and not _allows(allowed, ip):
            reason = "ip_not_allowed"
        verdict = Verdict(
            reason is None, reason, key_id, account_id, email, role, tuple(permissions), expires_at
        )
        return verdict, Use(key_id, now, ip) if reason is None else None

    def close(self) -> None:
        """Close what is idle."""
        idle, self._idle = self._idle, []
        for line in idle:
            line.connection.close()

    def _select(self, values: list[bytes]) -> Any:
        peppers = len(values)
        if self._clock:
            values.append(struct.pack("!d", self._clock().timestamp()))
        try:
            return self._fetch(values, peppers)
        except psycopg.OperationalError:
            self.close()
            return self._fetch(values, peppers)

    def _fetch(self, values: list[bytes], peppers: int) -> Any:
        line = self._take(peppers)
        try:
            row = line.ask(values)
        except BaseException:
            line.connection.close()
            raise
        self._idle.append(line)
        return row

    def _take(self, peppers: int) -> _Line:
        """A connection that nobody else uses until it is put back."""
        if self._process != os.getpid():  # after a fork: the parent's connections are not ours
            self._process, self._idle = os.getpid(), []
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
