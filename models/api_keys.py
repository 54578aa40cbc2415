"""Keys: issued, found, listed, deleted. A key's text is never here, only its digest."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from . import accounts, audit, holds, outbox, roles, settle
from .base import Tx
from .creation import Creation
from .errors import NotFound, Refused
from .identity import new_id
from .key_text import SCHEME_HMAC, Peppers, Secret, digest, digests, hint
from .policy import Policy


@dataclass(frozen=True)
class IssuedKey:
    """A key that has just been made, without its text."""

    id: UUID
    family_id: UUID
    expires_at: datetime


@dataclass(frozen=True)
class ApiKey:
    """A key as operators see it. Times are UTC; `last_used_at` is at most a minute behind."""

    id: UUID
    name: str
    account_id: UUID
    account: str
    created_by: str
    role: str
    hint: str
    allowed_ips: list[str] | None
    family_id: UUID
    status: str
    held: bool
    version: int
    created_at: datetime
    expires_at: datetime
    deleted_at: datetime | None
    last_used_at: datetime | None
    rotation_policy: str | None = None
    """The policy that was chosen for this key itself."""


COLUMNS: Final = """
    k.id, k.name, k.account_id, a.email AS account, k.created_by, k.role, k.hint,
    k.allowed_ips, k.family_id, k.status, k.held, k.version, k.created_at, k.expires_at,
    k.deleted_at, u.last_used_at, k.rotation_policy
"""
"""What an ApiKey is read from."""

FROM: Final = """
    FROM keyturn.api_keys k
    JOIN keyturn.accounts a ON a.id = k.account_id
    LEFT JOIN keyturn.key_uses u ON u.key_id = k.id
"""
_SELECT = f"SELECT {COLUMNS} {FROM}"


def create(
    tx: Tx, creation: Creation, *, actor: str, peppers: Peppers, secret: Secret
) -> IssuedKey:
    """Issue a key to a user by checked arguments.

    The account's row is taken before anything is read from it, so that no key slips through while
    the account is being disabled. Refused as `name_invalid`, `user_unknown`, `account_held`,
    `role_not_allowed`.
    """
    if "\0" in creation.name or not creation.name.isprintable():
        raise Refused("name_invalid", "the name has control characters: write one plain line")
    account_id = accounts.find(tx, creation.user_email).id
    holds.lock_accounts(tx, [account_id])
    account = accounts.find(tx, str(account_id))
    if account.held:
        own = holds.standing(tx, holds.on_account(account_id))
        names = [f"{hold.source}/{hold.kind}" for hold in own]
        if account.tenant_id is not None:
            of_tenant = holds.standing(tx, holds.on_tenant(account.tenant_id))
            names += [f"{one.source}/{one.kind} of tenant {account.tenant}" for one in of_tenant]
        raise Refused(
            "account_held",
            f"{account.email} is held by {', '.join(names)}: no key can be created until that is"
            " lifted",
        )
    roles.check_grant(tx, creation.role_name, account_id)
    return issue(
        tx,
        account_id=account_id,
        name=creation.name,
        role=creation.role_name,
        validity=creation.validity,
        allowed_ips=creation.allowed_ips,
        created_by=actor,
        secret=secret,
        peppers=peppers,
    )


ISSUED: Final = """
    issued AS (
        INSERT INTO keyturn.api_keys (
            id, account_id, name, created_by, role, digest, scheme, pepper, hint, allowed_ips,
            family_id, created_at, expires_at, rotation_policy)
        VALUES (:id, :account, :name, :created_by, :role, :digest, :scheme, :pepper, :hint,
            CAST(:ips AS text[]), :family, :now, :now + :validity, :rotation_policy)
        RETURNING *
    ), used AS (
        INSERT INTO keyturn.key_uses (key_id) VALUES (:id) RETURNING *
    )
"""
"""Parts of a statement that stores a new key, by the `parameters` of one."""

_ISSUE = f"WITH {ISSUED} SELECT id, family_id, expires_at FROM issued"


def issue(
    tx: Tx,
    *,
    account_id: UUID,
    name: str,
    role: str,
    validity: timedelta,
    allowed_ips: Sequence[str] | None,
    created_by: str,
    secret: Secret,
    peppers: Peppers,
) -> IssuedKey:
    """Store a new key of a locked account."""
    row = tx.row(
        _ISSUE,
        **parameters(
            account_id=account_id,
            name=name,
            role=role,
            validity=validity,
            allowed_ips=allowed_ips,
            created_by=created_by,
            secret=secret,
            peppers=peppers,
        ),
    )
    assert row is not None
    issued = IssuedKey(**row)
    announce(tx, issued, account_id=account_id, created_by=created_by)
    return issued


def parameters(
    *,
    account_id: UUID,
    name: str,
    role: str,
    validity: timedelta,
    allowed_ips: Sequence[str] | None,
    created_by: str,
    secret: Secret,
    peppers: Peppers,
    family_id: UUID | None = None,
    rotation_policy: str | None = None,
) -> dict[str, Any]:
    """What ISSUED stores: a new id, a digest; `family_id` where the key succeeds another one."""
    key_id = new_id()
    text = secret.reveal()
    return {
        "id": key_id,
        "account": account_id,
        "name": name,
        "created_by": created_by,
        "role": role,
        "digest": digest(text, peppers[peppers.current]),
        "scheme": SCHEME_HMAC,
        "pepper": peppers.current,
        "hint": hint(text),
        "ips": list(allowed_ips) if allowed_ips else None,
        "family": family_id or key_id,
        "validity": validity,
        "rotation_policy": rotation_policy,
    }


def announce(tx: Tx, issued: IssuedKey, *, account_id: UUID, created_by: str) -> None:
    """Write down and tell that a key was issued."""
    audit.record(
        tx,
        created_by,
        "key.created",
        account_id=account_id,
        key_id=issued.id,
        version=1,
        after="active",
    )
    payload = {
        "account_id": account_id,
        "key_ids": [issued.id],
        "family_id": issued.family_id,
        "expires_at": issued.expires_at.isoformat(),
    }
    outbox.add(tx, outbox.EVENTS, "key.issued", payload, account_id=account_id)


def delete(tx: Tx, key_id: UUID, *, actor: str, why: str, policy: Policy) -> bool:
    """End a key of a locked account for ever. False where it was deleted before."""
    return bool(delete_all(tx, [key_id], actor=actor, why=why, policy=policy))


def delete_all(tx: Tx, key_ids: Sequence[UUID], *, actor: str, why: str, policy: Policy) -> int:
    """End keys of locked accounts for ever; returns how many were not deleted before."""
    tx.execute(
        "UPDATE keyturn.api_keys SET deleted_at = :now WHERE id = ANY(:ids) AND deleted_at IS NULL",
        ids=list(key_ids),
    )
    return settle.keys(tx, key_ids, actor=actor, why=why, policy=policy)


def find(tx: Tx, name: str) -> ApiKey:
    """The key of an id; NotFound (`key_unknown`) if there is none."""
    try:
        row = tx.row(f"{_SELECT} WHERE k.id = :id", id=UUID(name))
    except ValueError:
        row = None
    if row is None:
        raise unknown(name)
    return ApiKey(**row)


def unknown(name: str) -> NotFound:
    """That there is no key of this id."""
    return NotFound("key_unknown", f"there is no key {name!r}; `keyturn keys list` shows all")


def by_text(tx: Tx, text: str, peppers: Peppers) -> ApiKey | None:
    """The key whose text this is, in whatever state, or None."""
    row = tx.row(f"{_SELECT} WHERE {_HAS_TEXT}", digests=digests(text, peppers))
    return None if row is None else ApiKey(**row)


def lock(tx: Tx, key_id: UUID) -> bool:
    """Take the row of a key's account; False where there is no such key."""
    found = tx.row(f"{_LOCK} WHERE k.id = :key {_OF_ACCOUNT}", key=key_id)
    return found is not None


def lock_by_text(tx: Tx, text: str, peppers: Peppers) -> UUID | None:
    """The same for the key whose text this is; its id, or None."""
    found: UUID | None = tx.scalar(
        f"{_LOCK} WHERE {_HAS_TEXT} {_OF_ACCOUNT}", digests=digests(text, peppers)
    )
    return found


_LOCK = "SELECT k.id FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id"
_OF_ACCOUNT = "FOR NO KEY UPDATE OF a"
# That one key has it is said by the limit: where the planner does not know the digests it reckons
# with ten, takes the plan for any of them for a dearer one, and plans each question anew.
_HAS_TEXT = "k.id = (SELECT id FROM keyturn.api_keys WHERE digest = ANY(:digests) LIMIT 1)"


def locked(tx: Tx, name: str) -> ApiKey:
    """The key of an id, read after its account's row was taken."""
    with suppress(ValueError):  # no id: `find` says so
        holds.lock_owner(tx, UUID(name))
    return find(tx, name)


def listed(
    tx: Tx,
    *,
    account_id: UUID | None = None,
    status: str | None = None,
    expiring: timedelta | None = None,
    include_ended: bool = True,
    limit: int = 1000,
) -> list[ApiKey]:
    """Keys, the newest first (with `expiring`: those that end within that time, soonest first)."""
    conditions, params = ["true"], dict[str, object]()
    if account_id is not None:
        conditions.append("k.account_id = :account")
        params["account"] = account_id
    if status is not None:
        conditions.append("k.status = :status")
        params["status"] = status
    if not include_ended:
        conditions.append("k.status NOT IN ('expired', 'deleted') AND k.expires_at > :now")
    order = "k.id DESC"
    if expiring is not None:
        conditions.append(
            "k.status NOT IN ('expired', 'deleted') AND k.expires_at > :now"
            " AND k.expires_at <= :now + :within"
        )
        params["within"] = expiring
        order = "k.expires_at, k.id"
    rows = tx.rows(
        f"{_SELECT} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT :limit",
        limit=limit,
        **params,
    )
    return [ApiKey(**row) for row in rows]
