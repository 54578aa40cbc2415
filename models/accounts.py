"""Accounts and the identities by which producers name them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .base import Tx
from .errors import NotFound
from .events import Subject
from .identifiers import ISSUED, normalise_email, normalised
from .predicate import HELD

RECYCLABLE = frozenset({"email", "phone_number"})
"""Formats whose values may come to name another person later."""


TENANT = "tenant"
"""The format of a name that stands for all accounts of a tenant."""

Identity = tuple[str, str, str]
"""Format, issuer and value: what names an account, or a tenant."""


def identity(subject: Subject, source: str = "") -> Identity:
    """The identity that a subject itself names, in its one spelling; its aliases are others.

    What a source names by an id of its own, without an issuer, is that source's. Refused where the
    value cannot be one of its format.
    """
    own = source if subject.format in ISSUED else ""
    return normalised(subject.format, subject.issuer or own, subject.value)


@dataclass(frozen=True)
class Account:
    """An account as operators see it. `held` says that a hold of it, or of its tenant, stands."""

    id: UUID
    email: str
    name: str
    role: str
    held: bool
    created_at: datetime
    keys: int = 0
    tenant_id: UUID | None = None
    tenant: str | None = None


@dataclass(frozen=True)
class Link:
    """Which account an identity names, and from when to when it does.

    Where `format` is TENANT it is a tenant, and `account_id` is its id.
    """

    account_id: UUID
    format: str
    linked_at: datetime
    unlinked_at: datetime | None = None
    id: UUID | None = None
    linked_by: str | None = None
    linked_sequence: int | None = None
    unlinked_by: str | None = None
    unlinked_sequence: int | None = None
    replaced: bool = False


@dataclass(frozen=True)
class KnownAs:
    """A name that an account has or had. `linked_by` and `unlinked_by` say who did it, if known."""

    format: str
    issuer: str
    value: str
    linked_at: datetime
    unlinked_at: datetime | None
    linked_by: str | None
    unlinked_by: str | None


_SELECT = f"""
    SELECT a.id, a.email, a.name, a.role, {HELD} AS held, a.created_at, a.tenant_id,
           (SELECT name FROM keyturn.tenants t WHERE t.id = a.tenant_id) AS tenant,
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


def is_held(tx: Tx, account_id: UUID) -> bool:
    """Whether a hold stands on an account that is known to be there, or on its tenant."""
    sql = f"SELECT {HELD} FROM keyturn.accounts a WHERE a.id = :id"
    return bool(tx.scalar(sql, id=account_id))


def listed(
    tx: Tx, *, held: bool | None = None, tenant_id: UUID | None = None, limit: int = 1000
) -> list[Account]:
    """Accounts by e-mail address: all, those that are (or are not) held, those of a tenant."""
    conditions, params = ["true"], dict[str, object]()
    if held is not None:
        conditions.append(f"{HELD} = :held")
        params["held"] = held
    if tenant_id is not None:
        conditions.append("a.tenant_id = :tenant")
        params["tenant"] = tenant_id
    rows = tx.rows(
        f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY a.email LIMIT :limit",
        limit=limit,
        **params,
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


def known_as(tx: Tx, account_id: UUID) -> list[KnownAs]:
    """Every identity that names an account or has named it, in the order of their links."""
    rows = tx.rows(
        """
        SELECT format, issuer, value, linked_at, unlinked_at, linked_by, unlinked_by
        FROM keyturn.account_identities WHERE account_id = :id
        ORDER BY linked_at, unlinked_at NULLS LAST, format, value
        """,
        id=account_id,
    )
    return [KnownAs(**row) for row in rows]


def named_at(links: Sequence[Link], at: datetime) -> Link | None:
    """Which of the links of one name counts for what happened at `at`.

    It is the one that stood then, of two that met in that instant the later one. Where none did, it
    is the one that stands now: who made it knew the account by this name before.
    """
    stood = [
        link
        for link in links
        if link.linked_at <= at and (link.unlinked_at is None or at <= link.unlinked_at)
    ]
    if stood:
        return max(stood, key=lambda link: (link.linked_at, link.unlinked_at is None))
    return next((link for link in links if link.unlinked_at is None), None)


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


def histories(tx: Tx, names: Iterable[Identity]) -> dict[Identity, list[Link]]:
    """Every link of each of these identities, past ones too; those that never named anybody are
    absent. What a tenant's name names is that tenant."""
    wanted = list(names)
    found = _of_tenants(tx, [name for name in wanted if name[0] == TENANT])
    for row in tx.rows(
        """
        WITH s (format, issuer, value) AS MATERIALIZED (
            SELECT * FROM unnest(
                CAST(:formats AS text[]), CAST(:issuers AS text[]), CAST(:values AS text[]))
        ), found AS (
            SELECT i.* FROM keyturn.account_identities i JOIN s USING (format, issuer, value)
            WHERE i.unlinked_at IS NULL
            UNION ALL
            SELECT i.* FROM keyturn.account_identities i JOIN s USING (format, issuer, value)
            WHERE i.unlinked_at IS NOT NULL
        )
        SELECT id, account_id, format, issuer, value, linked_at, unlinked_at, linked_by,
               linked_sequence, unlinked_by, unlinked_sequence, replaced
        FROM found
        UNION ALL
        SELECT NULL, id, 'account', '', id::text, created_at, NULL, NULL, NULL, NULL, NULL, false
        FROM keyturn.accounts WHERE id = ANY(CAST(:ids AS uuid[]))
        """,
        formats=[format for format, _, _ in wanted],
        issuers=[issuer for _, issuer, _ in wanted],
        values=[value for _, _, value in wanted],
        ids=[value for format, _, value in wanted if format == "account" and _is_uuid(value)],
    ):
        facts = dict(row)
        issuer, value = facts.pop("issuer"), facts.pop("value")
        found.setdefault((row["format"], issuer, value), []).append(Link(**facts))
    return found


def _of_tenants(tx: Tx, names: Sequence[Identity]) -> dict[Identity, list[Link]]:
    if not names:
        return {}
    rows = tx.rows(
        """
        SELECT issuer, value, tenant_id, linked_at FROM keyturn.tenant_identities
        JOIN unnest(CAST(:issuers AS text[]), CAST(:values AS text[])) AS s (issuer, value)
            USING (issuer, value)
        """,
        issuers=[issuer for _, issuer, _ in names],
        values=[value for _, _, value in names],
    )
    return {
        (TENANT, row["issuer"], row["value"]): [Link(row["tenant_id"], TENANT, row["linked_at"])]
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
