"""Accounts and the identities by which producers name them."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .base import Tx
from .errors import NotFound
from .events import Subject
from .identifiers import normalise_email

RECYCLABLE = frozenset({"email", "phone"})
"""Formats whose values may come to name another person later."""


Identity = tuple[str, str, str]
"""Format, issuer and value: what names an account."""


def identity(subject: Subject) -> Identity:
    """The identity that a subject itself names; its aliases are others."""
    return subject.format, subject.issuer, subject.value


@dataclass(frozen=True)
class Account:
    """An account as operators see it. `held` says that a hold stands."""

    id: UUID
    email: str
    name: str
    role: str
    held: bool
    created_at: datetime
    keys: int = 0


@dataclass(frozen=True)
class Link:
    """Which account an identity names, and since when it does."""

    account_id: UUID
    format: str
    linked_at: datetime


_SELECT = """
    SELECT a.id, a.email, a.name, a.role, a.held, a.created_at,
           (SELECT count(*) FROM keyturn.api_keys k
            WHERE k.account_id = a.id AND k.status = 'active') AS keys
    FROM keyturn.accounts a
"""


def find(tx: Tx, name: str) -> Account:
    """The account of an id or an e-mail address, exactly; NotFound (`user_unknown`) if none is."""
    try:
        row = tx.row(f"{_SELECT} WHERE a.id = :id", id=UUID(name))
    except ValueError:
        try:
            address = normalise_email(name)
        except ValueError:
            address = name
        row = tx.row(f"{_SELECT} WHERE a.email = :email", email=address)
    if row is None:
        raise NotFound(
            "user_unknown",
            f"there is no account {name!r}; `keyturn accounts create EMAIL --role ROLE` adds one",
        )
    return Account(**row)


def listed(tx: Tx, *, held: bool | None = None, limit: int = 1000) -> list[Account]:
    """Accounts by e-mail address, all or only those that are (or are not) held."""
    where = "" if held is None else "WHERE a.held = :held"
    rows = tx.rows(
        f"{_SELECT} {where} ORDER BY a.email LIMIT :limit",
        limit=limit,
        **({} if held is None else {"held": held}),
    )
    return [Account(**row) for row in rows]


def identities(tx: Tx, account_id: UUID) -> list[Subject]:
    """The identities that name an account now."""
    rows = tx.rows(
        """
        SELECT format, issuer, value FROM keyturn.account_identities
        WHERE account_id = :id AND unlinked_at IS NULL ORDER BY linked_at, format, value
        """,
        id=account_id,
    )
    return [Subject(**row) for row in rows]


def resolve(tx: Tx, names: Iterable[Identity]) -> dict[Identity, Link]:
    """The accounts that these identities name now; those that name none are absent."""
    wanted = list(names)
    rows = tx.rows(
        """
        SELECT i.format, i.issuer, i.value, i.account_id, i.linked_at
        FROM keyturn.account_identities i
        JOIN unnest(CAST(:formats AS text[]), CAST(:issuers AS text[]), CAST(:values AS text[]))
             AS s (format, issuer, value) USING (format, issuer, value)
        WHERE i.unlinked_at IS NULL
        UNION ALL
        SELECT 'account', '', id::text, id, created_at
        FROM keyturn.accounts WHERE id = ANY(CAST(:ids AS uuid[]))
        """,
        formats=[format for format, _, _ in wanted],
        issuers=[issuer for _, issuer, _ in wanted],
        values=[value for _, _, value in wanted],
        ids=[value for format, _, value in wanted if format == "account" and _is_uuid(value)],
    )
    return {
        (row["format"], row["issuer"], row["value"]): Link(
            row["account_id"], row["format"], row["linked_at"]
        )
        for row in rows
    }


def lock_identities(tx: Tx, names: Iterable[Identity]) -> None:
    """Take the advisory locks of identities, in order: first of all locks (rule 6.1)."""
    tx.execute(
        """
        SELECT pg_advisory_xact_lock(number) FROM (
            SELECT DISTINCT hashtextextended(name, 0) AS number
            FROM unnest(CAST(:names AS text[])) AS name ORDER BY number
        ) AS ordered
        """,
        names=["\x1f".join(name) for name in names],
    )


def _is_uuid(value: str) -> bool:
    try:
        return str(UUID(value)) == value
    except ValueError:
        return False
