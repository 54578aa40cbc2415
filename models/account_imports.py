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
    dry_run: bool,
    actor: str,
    policy: Policy,
) -> list[Outcome]:
    """Import some accounts in one transaction; what waited for them is applied in it.

    A new account gets all of its identities, or nothing. One that is there is changed only with
    `update`; identities are added, none is taken away. Refused lines: `role_missing`,
    `role_unknown`, `created_in_future`, `identity_taken`, `address_unlinked`. To change a role is
    the right of the schema's owner: for others PostgreSQL refuses it. Lines that need writing,
    or that another account stands in the way of, are looked at again under the advisory locks of
    their identities (rule 2.6).
    """
    plan = _planned(tx, rows, update)
    if dry_run or not plan.busy:
        return [plan.outcomes[row.line] for row in rows]
    work = [row for row in rows if row.line in plan.busy]
    accounts.lock_identities(tx, {name for row in work for name in row.names})
    again = _planned(tx, work, update)
    _write(tx, again, actor)
    if again.links:
        account_events.apply_waiting(tx, [one["value"] for one in again.links], policy)
    plan.outcomes |= again.outcomes
    return [plan.outcomes[row.line] for row in rows]


# Another import of the same account may have been under way between our look at the accounts and
# our look at the names.
_OTHERS = frozenset({"identity_taken", "address_unlinked"})


def _planned(tx: Tx, rows: Sequence[AccountRow], update: bool) -> _Plan:
    known = _read(tx, rows)
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
    return plan


def _read(tx: Tx, rows: Sequence[AccountRow]) -> _Known:
    found = tx.rows(
        "SELECT id, email, name, role FROM keyturn.accounts WHERE email = ANY(:emails)",
        emails=list({row.email for row in rows}),
    )
    links = accounts.resolve(tx, {name for row in rows for name in row.names})
    roles = tx.execute("SELECT name FROM keyturn.roles").scalars()
    return _Known(
        frozenset(roles),
        tx.now(),
        {one["email"]: dict(one) for one in found},
        {name: link.account_id for name, link in links.items()},
    )


def _fault(row: AccountRow, found: Mapping[str, Any] | None, known: _Known) -> Outcome | None:
    if row.role is None and found is None:
        return refused(row, "role_missing", "its role is missing: fill the column, or give --role")
    if row.role is not None and row.role not in known.roles:
        names = ", ".join(sorted(known.roles))
        return refused(row, "role_unknown", f"there is no role {row.role!r}; use one of: {names}")
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
    known.accounts[row.email] = account
    plan.new.append({**account, "created_at": row.created_at})
    for name in row.names:
        _link(plan, account_id, name, known)
    plan.audited.append({"id": account_id, "action": "account.created", "why": "imported"})
    plan.outcomes[row.line] = Outcome(row.line, "created")


def _compare(
    plan: _Plan, row: AccountRow, found: dict[str, Any], known: _Known, update: bool
) -> None:
    wanted = {"name": row.name, "role": row.role}
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
    plan.busy.add(row.line)
    if changes:
        found |= changes
        plan.changed.append({"id": found["id"], **changes})
        changed = "; ".join(said[: len(changes)])
        plan.audited.append({"id": found["id"], "action": "account.changed", "why": changed})
    for name in missing:
        _link(plan, found["id"], name, known)
        label = " ".join(filter(None, name))
        plan.audited.append({"id": found["id"], "action": "account.linked", "why": label})
    plan.outcomes[row.line] = Outcome(row.line, "updated", "account_updated", what)


def _link(plan: _Plan, account_id: UUID, name: Identity, known: _Known) -> None:
    format, issuer, value = name
    known.owners[name] = account_id
    plan.links.append(
        {"account_id": account_id, "format": format, "issuer": issuer, "value": value}
    )


def _write(tx: Tx, plan: _Plan, actor: str) -> None:
    if plan.changed:
        holds.lock_accounts(tx, [one["id"] for one in plan.changed])
        tx.execute(_RENAME, rows=_json(plan.changed))
        if any("role" in one for one in plan.changed):  # the owner of the schema may, no other
            tx.execute(_CHANGE_ROLE, rows=_json(plan.changed))
    if plan.new:
        tx.execute(_ADD, rows=_json(plan.new))
    if plan.links:
        tx.execute(_LINK, rows=_json(plan.links))
    if plan.audited:
        tx.execute(_AUDIT, rows=_json(plan.audited), actor=actor)


# A line that names an account a second time may change it again: the last one counts.
_LAST = """
    FROM (
        SELECT id, (array_agg(name ORDER BY place DESC) FILTER (WHERE name IS NOT NULL))[1] AS name,
               (array_agg(role ORDER BY place DESC) FILTER (WHERE role IS NOT NULL))[1] AS role
        FROM ROWS FROM (jsonb_to_recordset(CAST(:rows AS jsonb)) AS (id uuid, name text, role text))
             WITH ORDINALITY AS r (id, name, role, place)
        GROUP BY id
    ) r
    WHERE a.id = r.id
"""
_RENAME = f"UPDATE keyturn.accounts a SET name = r.name {_LAST} AND r.name IS NOT NULL"
_CHANGE_ROLE = f"UPDATE keyturn.accounts a SET role = r.role {_LAST} AND r.role IS NOT NULL"
_ADD = """
    INSERT INTO keyturn.accounts (id, email, name, role, created_at)
    SELECT id, email, name, role, coalesce(created_at, :now)
    FROM jsonb_to_recordset(CAST(:rows AS jsonb))
        AS r (id uuid, email text, name text, role text, created_at timestamptz)
"""
_LINK = """
    INSERT INTO keyturn.account_identities (id, account_id, format, issuer, value, linked_at)
    SELECT gen_random_uuid(), account_id, format, issuer, value, :now
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
