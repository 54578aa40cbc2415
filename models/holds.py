"""Holds: what stops a tenant, an account or a key, per (source, kind).

Lifting one lifts nothing else.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from . import audit, settle
from .base import Tx
from .identity import new_id
from .policy import Policy

OPERATOR = "operator"

CONCERNS = "(h.account_id = a.id OR h.tenant_id = a.tenant_id)"
"""A hold `h` is one of account `a`, or of the tenant that it is in."""

JOINED = "CASE WHEN h.tenant_id IS NOT NULL THEN a.tenant_since END"
"""Where such a hold is the tenant's: when the account came into it."""

SINCE = f"greatest(h.placed_at, {JOINED})"
"""Since when such a hold concerns the account: it may have come into the tenant later."""


@dataclass(frozen=True)
class Hold:
    """A standing hold, as operators see it."""

    source: str
    kind: str
    placed_at: datetime
    reason: str | None


@dataclass(frozen=True)
class Target:
    """What a hold stops: `on_tenant`, `on_account`, or `on_key`."""

    column: Literal["tenant_id", "account_id", "key_id"]
    id: UUID


def on_tenant(tenant_id: UUID) -> Target:
    """Every account that is in a tenant."""
    return Target("tenant_id", tenant_id)


def on_account(account_id: UUID) -> Target:
    """A whole account."""
    return Target("account_id", account_id)


def on_key(key_id: UUID) -> Target:
    """One key alone."""
    return Target("key_id", key_id)


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Whose hold it is, of which kind, and who places or lifts it, and why."""

    source: str
    kind: str
    actor: str
    reason: str | None = None


def standing(tx: Tx, target: Target) -> list[Hold]:
    """The holds that stand on just this target, oldest first."""
    rows = tx.rows(
        f"""
        SELECT source, kind, placed_at, reason FROM keyturn.holds
        WHERE {target.column} = :target AND placed_at IS NOT NULL AND lifted_at IS NULL
        ORDER BY placed_at, source, kind
        """,
        target=target.id,
    )
    return [Hold(**row) for row in rows]


def lock_tenants(tx: Tx, ids: Iterable[UUID]) -> None:
    """Take tenants' rows, in order, before those of accounts: the first statement of whatever
    changes their holds."""
    if wanted := sorted(set(ids)):
        tx.execute(
            "SELECT FROM keyturn.tenants WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
            ids=wanted,
        )


def lock_accounts(tx: Tx, ids: Iterable[UUID]) -> None:
    """Take the accounts' rows, in order: the first statement of whatever changes their keys."""
    tx.execute(
        "SELECT FROM keyturn.accounts WHERE id = ANY(:ids) ORDER BY id FOR NO KEY UPDATE",
        ids=sorted(set(ids)),
    )


def lock_owner(tx: Tx, key_id: UUID) -> None:
    """The same for the account of a key, if there is such a key."""
    tx.execute(
        "SELECT FROM keyturn.accounts"
        " WHERE id = (SELECT account_id FROM keyturn.api_keys WHERE id = :key) FOR NO KEY UPDATE",
        key=key_id,
    )


def refresh_accounts(tx: Tx, ids: Sequence[UUID]) -> int:
    """Set `held` of locked accounts from their holds; those that changed want settling."""
    changed = tx.count(
        """
        UPDATE keyturn.accounts a SET held = h.held, unsettled = true
        FROM (
            SELECT account_id, bool_or(placed_at IS NOT NULL AND lifted_at IS NULL) AS held
            FROM keyturn.holds WHERE account_id = ANY(:ids) GROUP BY account_id
        ) h
        WHERE a.id = h.account_id AND a.held <> h.held
        """,
        ids=list(ids),
    )
    if changed:
        tx.ring("keys.settle")
    return changed


def refresh_tenants(tx: Tx, ids: Sequence[UUID]) -> int:
    """The same of locked tenants, whose members want settling: all of them, from the first on."""
    changed = tx.count(
        """
        UPDATE keyturn.tenants t SET held = h.held, unsettled = true, settled_to = NULL
        FROM (
            SELECT tenant_id, bool_or(placed_at IS NOT NULL AND lifted_at IS NULL) AS held
            FROM keyturn.holds WHERE tenant_id = ANY(:ids) GROUP BY tenant_id
        ) h
        WHERE t.id = h.tenant_id AND t.held <> h.held
        """,
        ids=list(ids),
    )
    if changed:
        tx.ring("keys.settle")
    return changed


def place(tx: Tx, target: Target, cause: Cause, policy: Policy) -> bool:
    """Place a hold on a locked account or tenant, or on a key of a locked account. False where it
    stood already."""
    return bool(place_alike(tx, {target: cause}, policy))


def place_alike(tx: Tx, wanted: Mapping[Target, Cause], policy: Policy) -> int:
    """Place holds, all on one kind of target, that differ only in what they are on and why.

    Returns how many did not stand already.
    """
    target, cause = next(iter(wanted.items()))
    placed = tx.execute(
        f"""
        INSERT INTO keyturn.holds (id, {target.column}, source, kind, placed_at, reason)
        SELECT w.id, w.target, :source, :kind, :now, w.reason
        FROM unnest(CAST(:ids AS uuid[]), CAST(:targets AS uuid[]), CAST(:reasons AS text[]))
             AS w (id, target, reason)
        ON CONFLICT ({target.column}, source, kind) WHERE {target.column} IS NOT NULL
        DO UPDATE SET placed_at = :now, lifted_at = NULL, reason = excluded.reason,
            confirm = false, confirmed_at = NULL
        WHERE keyturn.holds.placed_at IS NULL OR keyturn.holds.lifted_at IS NOT NULL
        RETURNING {target.column}
        """,
        ids=[new_id() for _ in wanted],
        targets=[one.id for one in wanted],
        source=cause.source,
        kind=cause.kind,
        reasons=[one.reason for one in wanted.values()],
    ).scalars()
    ids = set(placed)
    changed = {one: why for one, why in wanted.items() if one.id in ids}
    if changed:
        _changed(tx, "placed", changed, policy)
    return len(changed)


def lift(tx: Tx, target: Target, cause: Cause, policy: Policy) -> bool:
    """Lift one hold of what `place` may be given. False where none stood."""
    lifted = tx.count(
        f"""
        UPDATE keyturn.holds SET lifted_at = :now
        WHERE {target.column} = :target AND source = :source AND kind = :kind
          AND placed_at IS NOT NULL AND lifted_at IS NULL
        """,
        target=target.id,
        source=cause.source,
        kind=cause.kind,
    )
    if lifted:
        _changed(tx, "lifted", {target: cause}, policy)
    return bool(lifted)


def _changed(tx: Tx, verb: str, changed: Mapping[Target, Cause], policy: Policy) -> None:
    """Write down holds that are alike, and let what they are on follow them."""
    tenants, accounts, keys = list[UUID](), list[UUID](), list[UUID]()
    for target, cause in changed.items():
        what = f"{cause.source}/{cause.kind}"
        why = what if cause.reason is None else f"{what}: {cause.reason}"
        if target.column == "key_id":
            audit.record(tx, cause.actor, f"hold.{verb}", key_id=target.id, why=why)
            keys.append(target.id)
        else:
            audit.record(tx, cause.actor, f"hold.{verb}", account_id=target.id, why=why)
            (accounts if target.column == "account_id" else tenants).append(target.id)
    if tenants:
        refresh_tenants(tx, tenants)
    if accounts:
        refresh_accounts(tx, accounts)
    if keys:
        tx.execute(
            """
            UPDATE keyturn.api_keys k SET held = EXISTS (
                SELECT FROM keyturn.holds h
                WHERE h.key_id = k.id AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL
            ) WHERE id = ANY(:keys)
            """,
            keys=keys,
        )
        settle.keys(tx, keys, actor=cause.actor, why=what, policy=policy)
