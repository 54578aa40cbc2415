"""New accounts, new names and addresses for them, and the events that had to wait for either."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from . import account_events, accounts, audit, event_rows, holds, tenants
from .accounts import Identity
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
    tenant: str | None = None,
    actor: str,
    policy: Policy,
) -> UUID:
    """Add an account, named by its e-mail address and by `identities`.

    What waited for one of these names is applied in the same transaction, so that the account's
    first key already meets its holds, and those of its tenant. Refused as `email_invalid`,
    `role_unknown`, `user_exists`, `identity_taken`, `tenant_unknown`.
    """
    try:
        address = normalise_email(email)
    except ValueError as error:
        raise Refused("email_invalid", f"{email!r} is no e-mail address: {error}") from error
    named = [("email", "", address), *map(accounts.identity, identities)]
    accounts.lock_identities(tx, named)
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
    for one in named:
        _link(tx, account_id, one, actor)
    audit.record(tx, actor, "account.created", account_id=account_id)
    if tenant is not None:
        tenants.assign(tx, account_id, tenants.find(tx, tenant), actor=actor)
    account_events.apply_waiting(tx, [value for _, _, value in named], policy)
    return account_id


def link(tx: Tx, account_id: UUID, subject: Subject, *, actor: str, policy: Policy) -> None:
    """Let a producer's identity name this account from now on.

    Refused as `identity_taken`, or where the value cannot be one of its format.
    """
    name = accounts.identity(subject)
    accounts.lock_identities(tx, [name])
    _link(tx, account_id, name, actor)
    audit.record(tx, actor, "account.linked", account_id=account_id, why=_label(name))
    account_events.apply_waiting(tx, [name[2]], policy)


def unlink(tx: Tx, account_id: UUID, subject: Subject, *, actor: str) -> None:
    """Let an identity name this account no longer: later events of it hit nobody.

    Holds stay as they are, and so does the address that mails go to. A change of identity that
    parked because the name was taken is looked at again. Refused as `identity_unknown`.
    """
    name = accounts.identity(subject)
    accounts.lock_identities(tx, [name])
    holds.lock_accounts(tx, [account_id])
    if not _unlink(tx, account_id, name, actor):
        raise Refused(
            "identity_unknown",
            f"{_label(name)} does not name this account now; `keyturn accounts identities` lists "
            "what does",
        )


@dataclass(frozen=True)
class Move:
    """The address of an account's mails, before and after; whether `after` has to be linked, and
    whether the link of `before` ends."""

    before: str
    after: str
    links: bool
    unlinks: bool

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after or self.links


def move_mails(
    tx: Tx,
    account_id: UUID,
    email: str,
    *,
    unlink_old: bool,
    dry_run: bool,
    actor: str,
    policy: Policy,
) -> Move:
    """Have an account's mails go to another address, which names it from now on.

    Messages that were not sent yet go there too. The old address names the account as before,
    unless `unlink_old`. What waited for the new one is applied in the same transaction. Refused as
    `email_invalid`, `address_taken`, `identity_taken`; as `address_moved` where somebody else moved
    it at the same time.
    """
    address = normalise_email(email)
    before = _address(tx, account_id)
    old, new = ("email", "", before), ("email", "", address)
    accounts.lock_identities(tx, [old, new])
    holds.lock_accounts(tx, [account_id])
    if _address(tx, account_id) != before:
        raise Refused("address_moved", "its address was changed at the same time: look at it again")
    move = _checked(tx, account_id, old, new, unlink_old)
    if dry_run or not move.changes:
        return move
    if before != address:
        tx.execute(
            "UPDATE keyturn.accounts SET email = :email WHERE id = :id",
            id=account_id,
            email=address,
        )
        why = f"email {before!r} -> {address!r}"
        audit.record(tx, actor, "account.changed", account_id=account_id, why=why)
    if move.links:
        _link(tx, account_id, new, actor)
        audit.record(tx, actor, "account.linked", account_id=account_id, why=_label(new))
        account_events.apply_waiting(tx, [address], policy)
    if move.unlinks:
        _unlink(tx, account_id, old, actor)
    return move


def _checked(tx: Tx, account_id: UUID, old: Identity, new: Identity, unlink_old: bool) -> Move:
    other = tx.scalar(
        "SELECT id FROM keyturn.accounts WHERE email = :email AND id <> :id",
        id=account_id,
        email=new[2],
    )
    if other is not None:
        raise Refused(
            "address_taken",
            f"{new[2]} is the address of account {other}: `keyturn accounts email {other} NEW` "
            "moves that one's mails first",
        )
    links = accounts.resolve(tx, [old, new])
    holder = links[new].account_id if new in links else None
    if holder not in (None, account_id):
        raise Refused(
            "identity_taken",
            f"{new[2]} names account {holder}: if it should not, `keyturn accounts unlink {holder} "
            f"email:{new[2]}` ends that",
        )
    mine = old in links and links[old].account_id == account_id
    return Move(old[2], new[2], holder is None, unlink_old and mine and old != new)


def _address(tx: Tx, account_id: UUID) -> str:
    found: str = tx.scalar("SELECT email FROM keyturn.accounts WHERE id = :id", id=account_id)
    return found


def _unlink(tx: Tx, account_id: UUID, name: Identity, actor: str) -> bool:
    """End a link; False where there is none. What waited for the name is looked at again."""
    unlinked = tx.count(
        """
        UPDATE keyturn.account_identities
        SET unlinked_at = greatest(:now, linked_at), unlinked_by = :actor
        WHERE account_id = :account AND unlinked_at IS NULL
          AND (format, issuer, value) = (:format, :issuer, :value)
        """,
        account=account_id,
        actor=actor,
        **_columns(name),
    )
    if unlinked:
        audit.record(tx, actor, "account.unlinked", account_id=account_id, why=_label(name))
        event_rows.free(tx, [name[2]])
    return bool(unlinked)


def _link(tx: Tx, account_id: UUID, name: Identity, actor: str) -> None:
    linked = tx.count(
        """
        INSERT INTO keyturn.account_identities
            (id, account_id, format, issuer, value, linked_at, linked_by)
        VALUES (:id, :account, :format, :issuer, :value, :now, :actor)
        ON CONFLICT (format, issuer, value) WHERE unlinked_at IS NULL DO NOTHING
        """,
        id=new_id(),
        account=account_id,
        actor=actor,
        **_columns(name),
    )
    if not linked:
        raise Refused(
            "identity_taken",
            f"{name[2]!r} ({name[0]}) names another account already; an identity names one "
            "account at a time",
        )


def _columns(name: Identity) -> dict[str, str]:
    return dict(zip(("format", "issuer", "value"), name, strict=True))


def _label(name: Identity) -> str:
    return " ".join(filter(None, name))
