"""Accounts that a product has already, brought in by the batch, with the identities they have."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from uuid import UUID

from . import account_events, accounts, holds
from .accounts import Identity, identity
from .base import Tx
from .events import Subject
from .identity import new_id
from .imports import Outcome, refused
from .policy import Policy
from .rehearsal import Rehearsal


@dataclass(frozen=True)
class AccountRow:
    """One account as a line names it. What is None is not said, and left as it is.

    `email` is normalised. `created_at` counts for a new account only.
    """

    line: int
    email: str
    role: str | None = None
    name: str | None = None
    created_at: datetime | None = None
    identities: tuple[Subject, ...] = ()
    tenant: str | None = None

    @cached_property
    def names(self) -> list[Identity]:
        """What names the account: its e-mail address first."""
        return list(dict.fromkeys([("email", "", self.email), *map(identity, self.identities)]))


@dataclass
class _Known:
    """What the database says of the accounts that a batch names, and what the batch adds to it."""

    roles: frozenset[str]
    now: datetime
    accounts: dict[str, dict[str, Any]]
    owners: dict[Identity, UUID]
    may_change_roles: bool
    tenants: dict[str, UUID]


@dataclass
class _Plan:
    """What a batch has to write, and what to tell of each line."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    new: list[dict[str, Any]] = field(default_factory=list)
    changed: list[dict[str, Any]] = field(default_factory=list)
    links: list[dict[str, Any]] = field(default_factory=list)
    audited: list[dict[str, Any]] = field(default_factory=list)
    busy: set[int] = field(default_factory=set)


def batch(
    tx: Tx,
    rows: Sequence[AccountRow],
    *,
    update: bool,
    rehearsal: Rehearsal | None,
    actor: str,
    policy: Policy,
) -> list[Outcome]:
    """Import some accounts in one transaction; what waited for them is applied in it.

    With a `rehearsal` nothing is written; what it heard of in earlier batches counts as there.

    A new account gets all of its identities, or nothing. One that is there is changed only with
    `update`; identities are added, none is taken away. Refused lines: `role_missing`,
    `role_unknown`, `tenant_unknown`, `created_in_future`, `identity_taken`, `address_unlinked`; and
    `role_change_not_granted`, since to change a role is the right of the schema's owner. Lines
    that need writing, or that another account stands in the way of, are looked at again under the
    advisory locks of their identities (rule 2.6).
    """
    work, plan = rows, _Plan()
    if rehearsal is not None or not _mostly_new(tx, rows):
        plan = _planned(tx, rows, update, rehearsal)
        work = [row for row in rows if row.line in plan.busy]
    if rehearsal is not None or not work:
        return [plan.outcomes[row.line] for row in rows]
    accounts.lock_identities(tx, {name for row in work for name in row.names})
    again = _planned(tx, work, update, None)
    _write(tx, again, actor)
    if again.links:
        account_events.apply_waiting(tx, [one["value"] for one in again.links], policy)
    plan.outcomes |= again.outcomes
    return [plan.outcomes[row.line] for row in rows]


def _mostly_new(tx: Tx, rows: Sequence[AccountRow]) -> bool:
    """Whether a look without the locks would be for little: most lines need them."""
    there: int = tx.scalar(
        "SELECT count(*) FROM keyturn.accounts WHERE email = ANY(:emails)",
        emails=[row.email for row in rows],
    )
    return there < len(rows) / 2


# Another import of the same account may have been under way between our look at the accounts and
# our look at the names.
_OTHERS = frozenset({"identity_taken", "address_unlinked"})


def _planned(
    tx: Tx, rows: Sequence[AccountRow], update: bool, rehearsal: Rehearsal | None
) -> _Plan:
    known = _read(tx, rows)
    if rehearsal is not None:
        _recall(rehearsal, rows, known)
    plan = _Plan()
    for row in rows:
        found = known.accounts.get(row.email)
        fault = _fault(row, found, known)
        if fault is not None:
            plan.outcomes[row.line] = fault
            if fault.code in _OTHERS:
                plan.busy.add(row.line)
        elif found is None:
            _add(plan, row, known)
        else:
            _compare(plan, row, found, known, update)
    if rehearsal is not None:
        made = [row for row in rows if plan.outcomes[row.line].did in ("created", "updated")]
        _remember(rehearsal, made, known)
    return plan


def _recall(rehearsal: Rehearsal, rows: Sequence[AccountRow], known: _Known) -> None:
    for email, one in rehearsal.recall("account", {row.email for row in rows}).items():
        known.accounts[email] = {**one, "id": UUID(one["id"])}
    names = {json.dumps(name): name for row in rows for name in row.names}
    for text, owner in rehearsal.recall("name", names).items():
        known.owners[names[text]] = UUID(owner)


def _remember(rehearsal: Rehearsal, made: Sequence[AccountRow], known: _Known) -> None:
    rehearsal.remember("account", {row.email: known.accounts[row.email] for row in made})
    owners = {json.dumps(name): known.owners[name] for row in made for name in row.names}
    rehearsal.remember("name", owners)


def _read(tx: Tx, rows: Sequence[AccountRow]) -> _Known:
    found = tx.rows(
        """
        SELECT a.id, a.email, a.name, a.role, t.name AS tenant FROM keyturn.accounts a
        LEFT JOIN keyturn.tenants t ON t.id = a.tenant_id WHERE a.email = ANY(:emails)
        """,
        emails=list({row.email for row in rows}),
    )
    tenants = tx.rows(
        "SELECT id, name FROM keyturn.tenants WHERE name = ANY(:names)",
        names=list({row.tenant for row in rows if row.tenant is not None}),
    )
    links = accounts.resolve(tx, {name for row in rows for name in row.names})
    roles = tx.execute("SELECT name FROM keyturn.roles").scalars()
    return _Known(
        frozenset(roles),
        tx.now(),
        {one["email"]: dict(one) for one in found},
        {name: link.account_id for name, link in links.items()},
        tx.scalar("SELECT has_column_privilege('keyturn.accounts', 'role', 'UPDATE')"),
        {one["name"]: one["id"] for one in tenants},
    )


def _fault(row: AccountRow, found: Mapping[str, Any] | None, known: _Known) -> Outcome | None:
    if row.role is None and found is None:
        return refused(row, "role_missing", "its role is missing: fill the column, or give --role")
    if row.role is not None and row.role not in known.roles:
        names = ", ".join(sorted(known.roles))
        return refused(row, "role_unknown", f"there is no role {row.role!r}; use one of: {names}")
    if row.tenant is not None and row.tenant not in known.tenants:
        mend = "`keyturn tenants create` adds one"
        return refused(row, "tenant_unknown", f"there is no tenant {row.tenant!r}: {mend}")
    if found is None and row.created_at is not None and row.created_at > known.now:
        return refused(
            row, "created_in_future", "created_at is to come: check the year, and the zone"
        )
    address = ("email", "", row.email)
    if found is not None and address not in known.owners:
        return refused(
            row,
            "address_unlinked",
            f"{row.email} was this account's address and names it no longer: it may be somebody "
            "else's now; `keyturn accounts show` says who it was",
        )
    mine = None if found is None else found["id"]
    for name in row.names:
        if known.owners.get(name, mine) != mine:
            label = " ".join(filter(None, name))
            return refused(
                row,
                "identity_taken",
                f"{label} names another account ({known.owners[name]}): an identity names one "
                "account at a time",
            )
    return None


def _add(plan: _Plan, row: AccountRow, known: _Known) -> None:
    account_id = new_id()
    plan.busy.add(row.line)
    account = {"id": account_id, "email": row.email, "name": row.name or "", "role": row.role}
    known.accounts[row.email] = {**account, "tenant": row.tenant}
    tenant_id = known.tenants[row.tenant] if row.tenant is not None else None
    plan.new.append({**account, "created_at": row.created_at, "tenant_id": tenant_id})
    for name in row.names:
        _link(plan, account_id, name, known)
    plan.audited.append({"id": account_id, "action": "account.created", "why": "imported"})
    _move(plan, account_id, None, row.tenant)
    plan.outcomes[row.line] = Outcome(row.line, "created")


def _compare(
    plan: _Plan, row: AccountRow, found: dict[str, Any], known: _Known, update: bool
) -> None:
    wanted = {"name": row.name, "role": row.role, "tenant": row.tenant}
    changes = {n: v for n, v in wanted.items() if v is not None and v != found[n]}
    missing = [name for name in row.names if name not in known.owners]
    if not changes and not missing:
        plan.outcomes[row.line] = Outcome(row.line, "unchanged")
        return
    said = [f"{name} {found[name]!r} -> {value!r}" for name, value in changes.items()]
    said += [f"also known as {' '.join(filter(None, name))}" for name in missing]
    what = "; ".join(said)
    if not update:
        message = f"{row.email} is there, with other facts: {what}. --update changes it"
        plan.outcomes[row.line] = Outcome(row.line, "differs", "account_differs", message)
        return
    if "role" in changes and not known.may_change_roles:
        plan.outcomes[row.line] = refused(
            row,
            "role_change_not_granted",
            f"{row.email} has the role {found['role']!r}, and this database role may not make it "
            f"{row.role!r}: have the owner of the schema give the same command "
            "(KEYTURN_DATABASE_URL), or leave the role of such lines empty",
        )
        return
    plan.busy.add(row.line)
    if changes:
        _move(plan, found["id"], found["tenant"], changes.get("tenant"))
        found |= changes
        plan.changed.append({"id": found["id"], **changes})
        changed = "; ".join(said[: len(changes)])
        plan.audited.append({"id": found["id"], "action": "account.changed", "why": changed})
    for name in missing:
        _link(plan, found["id"], name, known)
        label = " ".join(filter(None, name))
        plan.audited.append({"id": found["id"], "action": "account.linked", "why": label})
    plan.outcomes[row.line] = Outcome(row.line, "updated", "account_updated", what)


def _move(plan: _Plan, account_id: UUID, before: str | None, after: str | None) -> None:
    """An account comes into a tenant, and leaves the one that it was in."""
    if after is None:
        return
    if before is not None:
        plan.audited.append({"id": account_id, "action": "account.left", "why": before})
    plan.audited.append({"id": account_id, "action": "account.joined", "why": after})


def _link(plan: _Plan, account_id: UUID, name: Identity, known: _Known) -> None:
    format, issuer, value = name
    known.owners[name] = account_id
    plan.links.append(
        {"account_id": account_id, "format": format, "issuer": issuer, "value": value}
    )


def _write(tx: Tx, plan: _Plan, actor: str) -> None:
    if plan.changed:
        holds.lock_accounts(tx, [one["id"] for one in plan.changed])
    if plan.new:  # before the changes: a later line may change what an earlier one adds
        tx.execute(_ADD, rows=_json(plan.new))
    if plan.changed:
        tx.execute(_RENAME, rows=_json(plan.changed))
        if any("role" in one for one in plan.changed):  # the owner of the schema may, no other
            tx.execute(_CHANGE_ROLE, rows=_json(plan.changed))
        if any("tenant" in one for one in plan.changed):
            tx.execute(_CHANGE_TENANT, rows=_json(plan.changed))
            tx.ring("keys.settle")
    if plan.links:
        tx.execute(_LINK, rows=_json(plan.links))
    if plan.audited:
        tx.execute(_AUDIT, rows=_json(plan.audited), actor=actor)


# A line that names an account a second time may change it again: the last one counts.
_LAST = """
    FROM (
        SELECT id, (array_agg(name ORDER BY place DESC) FILTER (WHERE name IS NOT NULL))[1] AS name,
               (array_agg(role ORDER BY place DESC) FILTER (WHERE role IS NOT NULL))[1] AS role,
               (array_agg(tenant ORDER BY place DESC)
                FILTER (WHERE tenant IS NOT NULL))[1] AS tenant
        FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb))
                        AS (id uuid, name text, role text, tenant text))
             WITH ORDINALITY AS r (id, name, role, tenant, place)
        GROUP BY id
    ) r
    WHERE a.id = r.id
"""
_RENAME = f"UPDATE keyturn.accounts a SET name = r.name {_LAST} AND r.name IS NOT NULL"
_CHANGE_ROLE = f"UPDATE keyturn.accounts a SET role = r.role {_LAST} AND r.role IS NOT NULL"
# Unsettled, as `tenants.assign` leaves it.
_CHANGE_TENANT = f"""
    UPDATE keyturn.accounts a SET tenant_id = (
        SELECT id FROM keyturn.tenants t WHERE t.name = r.tenant
    ), tenant_since = :now, unsettled = true {_LAST} AND r.tenant IS NOT NULL
"""
_ADD = """
    INSERT INTO keyturn.accounts (id, email, name, role, created_at, tenant_id, tenant_since)
    SELECT id, email, name, role, coalesce(created_at, :now), tenant_id,
           CASE WHEN tenant_id IS NOT NULL THEN :now END
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, email text, name text, role text, created_at timestamptz, tenant_id uuid)
"""
# Ids as `new_id` makes them, of version 7: the index of a million random ones is all over the disk.
_LINK = """
    INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
    SELECT CAST(
               lpad(to_hex(CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)), 12, '0')
               || '7' || substr(replace(CAST(gen_random_uuid() AS text), '-', ''), 14) AS uuid),
           account_id, format, issuer, value, :now
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r (account_id uuid, format text, issuer text, value text)
"""
_AUDIT = """
    INSERT INTO keyturn.audit (at, actor, action, account_id, why)
    SELECT :now, :actor, action, id, why
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (id uuid, action text, why text)
"""


def _json(rows: Iterable[Mapping[str, Any]]) -> str:
    return json.dumps(list(rows), default=_plain)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
