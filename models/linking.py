"""New accounts and new names for them, and the events that had to wait for either."""

from collections.abc import Iterable
from uuid import UUID

from . import account_events, accounts, audit
from .base import Tx
from .errors import Refused
from .events import Subject
from .identifiers import normalise_email
from .identity import new_id
from .policy import Policy


def create(
    tx: Tx,
    email: str,
    role: str,
    *,
    name: str = "",
    identities: Iterable[Subject] = (),
    actor: str,
    policy: Policy,
) -> UUID:
    """Add an account, named by its e-mail address and by `identities`.

    What waited for one of these names is applied in the same transaction, so that the account's
    first key already meets its holds. Refused as `email_invalid`, `role_unknown`, `user_exists`,
    `identity_taken`.
    """
    try:
        address = normalise_email(email)
    except ValueError as error:
        raise Refused("email_invalid", f"{email!r} is no e-mail address: {error}") from error
    subjects = [Subject(format="email", value=address), *identities]
    accounts.lock_identities(tx, map(accounts.identity, subjects))
    if tx.row("SELECT FROM keyturn.roles WHERE name = :role", role=role) is None:
        names = ", ".join(tx.execute("SELECT name FROM keyturn.roles ORDER BY name").scalars())
        raise Refused("role_unknown", f"there is no role {role!r}; choose one of: {names}")
    account_id = new_id()
    added = tx.count(
        """
        INSERT INTO keyturn.accounts (id, email, name, role, created_at)
        VALUES (:id, :email, :name, :role, :now) ON CONFLICT (email) DO NOTHING
        """,
        id=account_id,
        email=address,
        name=name,
        role=role,
    )
    if not added:
        raise Refused("user_exists", f"there is an account for {address} already")
    for subject in subjects:
        _link(tx, account_id, subject)
    audit.record(tx, actor, "account.created", account_id=account_id)
    account_events.apply_waiting(tx, [subject.value for subject in subjects], policy)
    return account_id


def link(tx: Tx, account_id: UUID, subject: Subject, *, actor: str, policy: Policy) -> None:
    """Let a producer's identity name this account from now on. Refused as `identity_taken`."""
    accounts.lock_identities(tx, [accounts.identity(subject)])
    _link(tx, account_id, subject)
    named = " ".join(filter(None, accounts.identity(subject)))
    audit.record(tx, actor, "account.linked", account_id=account_id, why=named)
    account_events.apply_waiting(tx, [subject.value], policy)


def _link(tx: Tx, account_id: UUID, subject: Subject) -> None:
    linked = tx.count(
        """
        INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
        VALUES (:id, :account, :format, :issuer, :value, :now)
        ON CONFLICT (format, issuer, value) WHERE unlinked_at IS NULL DO NOTHING
        """,
        id=new_id(),
        account=account_id,
        format=subject.format,
        issuer=subject.issuer,
        value=subject.value,
    )
    if not linked:
        raise Refused(
            "identity_taken",
            f"{subject.value!r} ({subject.format}) names another account already; an identity "
            "names one account at a time",
        )
