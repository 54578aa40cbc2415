"""Why a key works or not, what a rotation waits for, and what a person can do: in sentences.

Everything is read from what decides it: the holds, the times, the audit. Times are UTC.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from . import accounts, api_keys, compromise, hand_overs, why_operation, why_rotation
from .accounts import Account
from .api_keys import ApiKey
from .base import Tx
from .errors import NotFound, Refused
from .holds import OPERATOR, Target, on_account, on_key, on_tenant
from .key_text import Peppers, read
from .operation_rows import find as find_plan
from .policy import Policy
from .rotation_rows import find as find_rotation
from .rotation_rows import select
from .why_rotation import at


@dataclass(frozen=True)
class Explanation:
    """What is to be said of one key, account, rotation or plan.

    `works` is whether the key, or the account's keys, or the rotation's successor work now, and of
    a plan whether it goes on, or went through. `now` says why, `next` what will happen by itself
    and when, `do` what a person can do.
    """

    subject: Literal["key", "account", "rotation", "plan"]
    id: UUID
    works: bool
    now: tuple[str, ...]
    next: tuple[str, ...]
    do: tuple[str, ...]


@dataclass(frozen=True)
class _Holder:
    """A standing hold, and who placed it."""

    source: str
    kind: str
    placed_at: datetime
    reason: str | None
    actor: str | None
    confirm: bool


def explain(tx: Tx, named: str, policy: Policy) -> Explanation:
    """Explain a key, rotation or plan by its id, or an account by its id or e-mail address.

    NotFound (`nothing_known`) where there is nothing of that name, which is not repeated.
    """
    if "\0" in named:
        raise _nothing()
    try:
        key = api_keys.find(tx, named)
    except Refused:
        key = None
    if key is not None:
        return of_key(tx, key, policy)
    for explain_one in (of_rotation, of_plan):
        try:
            return explain_one(tx, named, policy)
        except NotFound:
            pass
    try:
        return of_account(tx, accounts.find(tx, named), policy)
    except NotFound:
        raise _nothing() from None


def _nothing() -> NotFound:
    return NotFound(
        "nothing_known",
        "there is no key, rotation, plan or account of this id, and no account of this address;"
        " a key's text goes to stdin, with - in its place",
    )


def explain_text(tx: Tx, text: str, policy: Policy, peppers: Peppers) -> Explanation:
    """Explain the key of a text. NotFound as `malformed` or `key_unknown`; neither repeats it."""
    secret = read(text, policy.key_prefix)
    if secret is None:
        raise NotFound(
            "malformed",
            "this is no key's text: it is cut short, mistyped or something else",
        )
    key = api_keys.by_text(tx, secret.reveal(), peppers)
    if key is None:
        raise NotFound(
            "key_unknown",
            "no key has this text: it was made elsewhere, or with a pepper that is not at hand",
        )
    return of_key(tx, key, policy)


def of_key(tx: Tx, key: ApiKey, policy: Policy) -> Explanation:
    """Why a key works or not."""
    account = accounts.find(tx, str(key.account_id))
    own, of_account = _holders(tx, on_key(key.id)), _holders(tx, on_account(key.account_id))
    of_tenant = _holders_of_tenant(tx, account)
    ended = tx.now() >= key.expires_at
    works = not (key.deleted_at or ended or own or of_account or of_tenant)
    name = f'Key {key.id} "{key.name}" of {key.account}'
    now = [f"{name} {'works' if works else 'does not work'}."]
    if key.deleted_at is not None:
        now.append(_deletion(tx, key))
    if ended:
        now.append(f"Its validity ended at {at(key.expires_at)}; no key is prolonged.")
    now += _standing(own, "The key")
    now += _standing(of_account, f"Its account {account.email}")
    now += _standing(of_tenant, f"The tenant {account.tenant} of its account")
    if works and key.allowed_ips:
        now.append(f"It may be used only from {', '.join(key.allowed_ips)}.")
    now += _uses(tx, key)
    rotations = select(
        tx,
        ":key IN (r.old_key_id, r.new_key_id) AND r.state <> 'cancelled' ORDER BY r.issued_at",
        key=key.id,
    )
    now += [why_rotation.place(one, key.id) for one in rotations]
    live = not (own or of_account or of_tenant)
    nxt = [] if key.deleted_at or ended else _ends(tx, key, policy, live=live)
    nxt += [line for one in rotations for line in why_rotation.to_come(one, policy, tx.now())]
    nxt += _deletions([*of_account, *_doomed_with(tx, account, of_tenant)], policy)
    do = [] if key.deleted_at else _mends(own, of_account, key, account)
    do += (
        [] if key.deleted_at else [_lifted_by(one, "tenants", account.tenant) for one in of_tenant]
    )
    do += _compromise(tx, key)
    do += [line for one in rotations for line in why_rotation.mends(one, policy, tx.now())]
    if works and not rotations:
        do.append(f"`keyturn keys rotate {key.id}` issues its successor beside it.")
    if (ended or key.deleted_at) and not rotations:
        do.append("Have a new key created: this one does not come back.")
    return Explanation("key", key.id, works, *map(_once, (now, nxt, do)))


def of_account(tx: Tx, account: Account, policy: Policy) -> Explanation:
    """Why an account's keys work or not."""
    holders, of_tenant = _holders(tx, on_account(account.id)), _holders_of_tenant(tx, account)
    held = bool(holders or of_tenant)
    state = "is disabled: none of its keys works" if held else "is not disabled"
    counts = tx.rows(
        "SELECT status, count(*) AS n FROM keyturn.api_keys WHERE account_id = :id"
        " GROUP BY status ORDER BY status",
        id=account.id,
    )
    has = ", ".join(f"{row['n']} {row['status']}" for row in counts) or "none"
    now = [f"Account {account.email} {state}.", f"Its keys: {has}."]
    now += _standing(holders, "The account") + _standing(of_tenant, f"Its tenant {account.tenant}")
    waiting = tx.scalar(
        """
        SELECT count(*) FROM keyturn.inbox i
        WHERE i.state IN ('received', 'parked') AND i.subject_value && (
            SELECT array_agg(value) FROM keyturn.account_identities
            WHERE account_id = :id AND unlinked_at IS NULL)
        """,
        id=account.id,
    )
    if waiting:
        now.append(f"{waiting} account events that name it wait, or are parked.")
    do = [_lifted_by(one, "accounts", account.email) for one in holders]
    do += [_lifted_by(one, "tenants", account.tenant) for one in of_tenant]
    if waiting:
        do.append("`keyturn events list --state parked` shows what waits for a person.")
    nxt = _deletions([*holders, *_doomed_with(tx, account, of_tenant)], policy)
    return Explanation("account", account.id, not held, *map(_once, (now, nxt, do)))


def of_rotation(tx: Tx, name: str, policy: Policy) -> Explanation:
    """What a rotation waits for."""
    rotation = find_rotation(tx, name)
    now = why_rotation.standing(rotation, hand_overs.progress(tx, rotation.id))
    if rotation.account_held:
        account = accounts.find(tx, str(rotation.account_id))
        now += _standing(_holders(tx, on_account(account.id)), "Its account")
        now += _standing(_holders_of_tenant(tx, account), f"The tenant {account.tenant} of that")
    return Explanation(
        "rotation",
        rotation.id,
        rotation.new_works,
        _once(now),
        _once(why_rotation.to_come(rotation, policy, tx.now())),
        _once(why_rotation.mends(rotation, policy, tx.now())),
    )


def of_plan(tx: Tx, name: str, _: Policy) -> Explanation:
    """How far a plan of bulk rotation is, and why it does not go on."""
    plan = find_plan(tx, name)
    return Explanation(
        "plan",
        plan.id,
        why_operation.goes_on(plan),
        _once(why_operation.standing(plan)),
        _once(why_operation.to_come(plan)),
        _once(why_operation.mends(plan)),
    )


def _holders(tx: Tx, target: Target) -> list[_Holder]:
    column = "e.key_id" if target.column == "key_id" else "e.account_id"
    rows = tx.rows(
        f"""
        SELECT h.source, h.kind, h.placed_at, h.reason, h.confirm, (
            SELECT e.actor FROM keyturn.audit e
            WHERE {column} = :target
              AND e.action = 'hold.placed' AND e.at = h.placed_at
              AND split_part(e.why, ': ', 1) = h.source || '/' || h.kind
            ORDER BY e.id DESC LIMIT 1) AS actor
        FROM keyturn.holds h
        WHERE h.{target.column} = :target AND h.placed_at IS NOT NULL AND h.lifted_at IS NULL
        ORDER BY h.placed_at, h.source, h.kind
        """,
        target=target.id,
    )
    return [_Holder(**row) for row in rows]


def _holders_of_tenant(tx: Tx, account: Account) -> list[_Holder]:
    return [] if account.tenant_id is None else _holders(tx, on_tenant(account.tenant_id))


def _doomed_with(tx: Tx, account: Account, of_tenant: Iterable[_Holder]) -> list[_Holder]:
    """The deletions of a tenant that take the account's keys: it was in the tenant by then."""
    sql = "SELECT tenant_since FROM keyturn.accounts WHERE id = :id"
    since = tx.scalar(sql, id=account.id)
    return [one for one in of_tenant if since < one.placed_at]


def _standing(holders: Iterable[_Holder], what: str) -> list[str]:
    return [
        f"{what} is held by {one.source}/{one.kind} since {at(one.placed_at)}"
        + (f", placed by {one.actor}" if one.actor else "")
        + (f" ({one.reason})" if one.reason else "")
        + "."
        for one in holders
    ]


def _deletion(tx: Tx, key: ApiKey) -> str:
    row = tx.row(
        """
        SELECT actor, why FROM keyturn.audit
        WHERE key_id = :key AND after = 'deleted' ORDER BY version DESC LIMIT 1
        """,
        key=key.id,
    )
    by = f" by {row['actor']} ({row['why']})" if row else ""
    return f"It was deleted at {at(key.deleted_at)}{by}, for ever."


def _uses(tx: Tx, key: ApiKey) -> list[str]:
    """What is on record of its use, and whether that of its family ever was."""
    row = tx.row(
        """
        SELECT u.last_used_at, u.uses, host(u.last_ip) AS ip, u.refused_at, u.refused_uses,
            host(u.refused_ip) AS refused_ip,
            EXISTS (SELECT FROM keyturn.api_keys f JOIN keyturn.key_uses fu ON fu.key_id = f.id
                    WHERE f.family_id = k.family_id AND fu.uses > 0) AS family
        FROM keyturn.api_keys k LEFT JOIN keyturn.key_uses u ON u.key_id = k.id WHERE k.id = :key
        """,
        key=key.id,
    )
    assert row is not None
    said = []
    if row["last_used_at"] is not None:
        origin = f" from {row['ip']}" if row["ip"] else ""
        said.append(f"It was last used at {at(row['last_used_at'])}{origin} ({row['uses']} times).")
    elif not row["family"]:
        said.append(
            "No use of it or its family was ever reported: it is not used, or what verifies it"
            " does not report."
        )
    else:
        said.append("It was never used.")
    if row["refused_at"] is not None:
        origin = f" from {row['refused_ip']}" if row["refused_ip"] else ""
        said.append(
            f"It was tried while it was stopped, last at {at(row['refused_at'])}{origin}"
            f" ({row['refused_uses']} times on record, at most one a minute)."
        )
    return said


def _ends(tx: Tx, key: ApiKey, policy: Policy, *, live: bool) -> list[str]:
    """Its end, and when its owner is told of that."""
    said = [f"It ends at {at(key.expires_at)}."]
    life, now = key.expires_at - key.created_at, tx.now()
    ahead = [one for one in policy.notice_thresholds if one * 2 <= life]
    if not ahead and life >= policy.notice_last_share_min_life:
        ahead = [life * policy.notice_last_share]
    told = [key.expires_at - one for one in ahead if key.expires_at - one > now]
    if told and live:
        said.append(f"Its owner is told of that at {at(min(told))}, unless it is replaced by then.")
    planned = tx.row(
        "SELECT next_at, policy FROM keyturn.rotation_schedule"
        " WHERE key_id = :key AND next_at IS NOT NULL",
        key=key.id,
    )
    if planned and live:
        said.append(
            f"Its rotation is planned for {at(planned['next_at'])}, by the policy"
            f" {planned['policy']!r}."
        )
    return said


def _deletions(holders: Iterable[_Holder], policy: Policy) -> list[str]:
    said = []
    for one in holders:
        if one.kind == "deleted" and one.confirm:
            said.append("Its keys are deleted once an operator confirms it.")
        elif one.kind == "deleted":
            when = at(one.placed_at + policy.deletion_delay)
            said.append(f"The keys of its account are deleted at {when}, for ever.")
    return said


def _mends(
    own: Sequence[_Holder], of_account: Sequence[_Holder], key: ApiKey, account: Account
) -> list[str]:
    said = [
        f"`keyturn keys enable {key.id}` lifts {OPERATOR}/disabled."
        for one in own
        if (one.source, one.kind) == (OPERATOR, "disabled")
    ]
    return said + [_lifted_by(one, "accounts", account.email) for one in of_account]


def _lifted_by(one: _Holder, noun: str, name: str | None) -> str:
    named = (
        ""
        if (one.source, one.kind) == (OPERATOR, "disabled")
        else (f" --source {one.source} --kind {one.kind}")
    )
    said = f"`keyturn {noun} enable {name}{named}` lifts {one.source}/{one.kind}"
    own = one.kind == "disabled" and one.source != OPERATOR
    whom = noun.removesuffix("s")
    said += f", as {one.source} does by itself when it enables the {whom}." if own else "."
    if one.kind == "deleted" and one.confirm:
        said += f" `keyturn accounts confirm-deletions {one.source}` lets the deletion go on."
    return said


def _compromise(tx: Tx, key: ApiKey) -> list[str]:
    found = compromise.find(tx, key.id)
    if found is None:
        return []
    again = f"`keyturn keys rotate {key.id} --compromised`"
    if found.state == "open":
        return [f"Others know it; what follows that is still to be done. {again} does it now."]
    if found.outcome == "issued":
        return [f"Others know it; {again} shows its successor, if nobody has fetched that yet."]
    if found.outcome == "held":
        return [f"Others know it, so it stays stopped; {again} issues a successor."]
    return [f"Others know it, so it stays stopped; it has no successor ({found.outcome})."]


def _once(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))
