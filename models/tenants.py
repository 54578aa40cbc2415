"""Tenants: accounts that are held together, by one row, and who of them belongs where.

An account is in one tenant at most. A hold of a tenant stops the keys of every member as the
predicate reads it (`predicate.HELD`): nothing is written to the members for it but the status of
their keys, which follows in batches (`settle.tenants`).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from . import account_events, accounts, audit, holds
from .accounts import TENANT
from .base import Tx
from .errors import NotFound, Refused
from .events import MAX_IDENTIFIER, Subject
from .identifiers import normalise_issuer
from .identity import new_id
from .policy import Policy

MAX_NAME = 200
"""Characters of a tenant's name."""


@dataclass(frozen=True)
class Tenant:
    """A tenant as operators see it. `held` says that a hold stands; `members` counts accounts."""

    id: UUID
    name: str
    held: bool
    created_at: datetime
    members: int


@dataclass(frozen=True)
class CalledBy:
    """A name by which a source calls a tenant: `issuer` is the source, or an issuer of its own."""

    issuer: str
    value: str
    linked_at: datetime
    linked_by: str


_SELECT = """
    SELECT t.id, t.name, t.held, t.created_at,
           (SELECT count(*) FROM keyturn.accounts a WHERE a.tenant_id = t.id) AS members
    FROM keyturn.tenants t
"""


def create(tx: Tx, name: str, *, names: Iterable[Subject] = (), actor: str, policy: Policy) -> UUID:
    """Add a tenant that sources call by `names`; what waited for one of them is applied at once.

    Refused as `tenant_name_invalid`, `tenant_exists`, `identity_taken`.
    """
    wanted = name.strip()
    if not wanted or len(wanted) > MAX_NAME or not wanted.isprintable() or _is_id(wanted):
        raise Refused(
            "tenant_name_invalid",
            f"a tenant's name is one line of up to {MAX_NAME} characters, and no id",
        )
    tenant_id = new_id()
    added = tx.count(
        """
        INSERT INTO keyturn.tenants (id, name, created_at) VALUES (:id, :name, :now)
        ON CONFLICT (name) DO NOTHING
        """,
        id=tenant_id,
        name=wanted,
    )
    if not added:
        raise Refused("tenant_exists", f"there is a tenant {wanted!r} already")
    audit.record(tx, actor, "tenant.created", account_id=tenant_id, why=wanted)
    for one in names:
        link(tx, tenant_id, one, actor=actor, policy=policy)
    return tenant_id


def find(tx: Tx, name: str) -> Tenant:
    """The tenant of an id or a name, exactly; NotFound (`tenant_unknown`) if there is none."""
    where = "t.id = CAST(:name AS uuid)" if _is_id(name) else "t.name = :name"
    row = tx.row(f"{_SELECT} WHERE {where}", name=name.strip())
    if row is None:
        raise NotFound(
            "tenant_unknown", f"there is no tenant {name!r}; `keyturn tenants create NAME` adds one"
        )
    return Tenant(**row)


def listed(tx: Tx, *, held: bool | None = None, limit: int = 1000) -> list[Tenant]:
    """Tenants by name, all or only those that are (or are not) held."""
    where = "" if held is None else "WHERE t.held = :held"
    rows = tx.rows(
        f"{_SELECT} {where} ORDER BY t.name LIMIT :limit",
        limit=limit,
        **({} if held is None else {"held": held}),
    )
    return [Tenant(**row) for row in rows]


def called_by(tx: Tx, tenant_id: UUID) -> list[CalledBy]:
    """The names by which sources call a tenant."""
    rows = tx.rows(
        """
        SELECT issuer, value, linked_at, linked_by FROM keyturn.tenant_identities
        WHERE tenant_id = :tenant ORDER BY issuer, value
        """,
        tenant=tenant_id,
    )
    return [CalledBy(**row) for row in rows]


def link(tx: Tx, tenant_id: UUID, subject: Subject, *, actor: str, policy: Policy) -> None:
    """Let a source's name mean this tenant from now on; what waited for it is applied with it.

    Such a name never changes hands, so that events from before the link count as well. Refused as
    `identity_taken`.
    """
    name = accounts.identity(subject)
    accounts.lock_identities(tx, [name])
    linked = tx.count(
        """
        INSERT INTO keyturn.tenant_identities (issuer, value, tenant_id, linked_at, linked_by)
        VALUES (:issuer, :value, :tenant, :now, :actor) ON CONFLICT (issuer, value) DO NOTHING
        """,
        issuer=subject.issuer,
        value=subject.value,
        tenant=tenant_id,
        actor=actor,
    )
    if not linked:
        raise Refused(
            "identity_taken",
            f"{subject.issuer} {subject.value} names a tenant already; a name means one at a time",
        )
    audit.record(tx, actor, "tenant.linked", account_id=tenant_id, why=_label(subject))
    account_events.apply_waiting(tx, [subject.value], policy)


def unlink(tx: Tx, tenant_id: UUID, subject: Subject, *, actor: str) -> None:
    """Let a name mean this tenant no longer: later events by it wait. Holds stay as they are.

    Refused as `identity_unknown`.
    """
    accounts.lock_identities(tx, [accounts.identity(subject)])
    unlinked = tx.count(
        """
        DELETE FROM keyturn.tenant_identities
        WHERE tenant_id = :tenant AND issuer = :issuer AND value = :value
        """,
        tenant=tenant_id,
        issuer=subject.issuer,
        value=subject.value,
    )
    if not unlinked:
        raise Refused(
            "identity_unknown",
            f"{_label(subject)} does not name this tenant; `keyturn tenants show` lists what does",
        )
    audit.record(tx, actor, "tenant.unlinked", account_id=tenant_id, why=_label(subject))


def name_of(issuer: str, value: str) -> Subject:
    """The name by which a source, or an issuer, calls a tenant; Refused as `identity_invalid`."""
    try:
        named = Subject(format=TENANT, issuer=normalise_issuer(issuer), value=value)
    except ValueError:
        named = None
    if named is None or not named.issuer:
        raise Refused(
            "identity_invalid",
            f"give who calls the tenant so, and its id there, of up to {MAX_IDENTIFIER} characters",
        )
    return named


def assign(tx: Tx, account_id: UUID, tenant: Tenant | None, *, actor: str) -> bool:
    """Have an account be in this tenant from now on, or in none. False where it was so.

    From the commit on it is held where its new tenant is, and free of the hold of the one before;
    the statuses of its keys follow.
    """
    holds.lock_accounts(tx, [account_id])
    before = tx.row(
        "SELECT t.id, t.name FROM keyturn.accounts a LEFT JOIN keyturn.tenants t"
        " ON t.id = a.tenant_id WHERE a.id = :id",
        id=account_id,
    )
    assert before is not None
    wanted = tenant.id if tenant else None
    if before["id"] == wanted:
        return False
    # Unsettled in any case: who holds the tenant just now may not see it as a member yet.
    tx.execute(
        """
        UPDATE keyturn.accounts SET tenant_id = :tenant, tenant_since = :now, unsettled = true
        WHERE id = :id
        """,
        id=account_id,
        tenant=wanted,
    )
    if before["id"] is not None:
        audit.record(tx, actor, "account.left", account_id=account_id, why=before["name"])
    if tenant is not None:
        audit.record(tx, actor, "account.joined", account_id=account_id, why=tenant.name)
    tx.ring("keys.settle")
    return True


def _label(subject: Subject) -> str:
    return f"{subject.issuer} {subject.value}"


def _is_id(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
