"""Rotation: the new key is issued and seen in use before the old one goes (rule 5).

Whoever changes a rotation holds the row of its account. The states, and what leads from one to the
next, stand in `rotation_rules`; how a step is written down, in `rotation_steps`; how the holder
gets the new key, in `handover`.
"""

from dataclasses import dataclass
from uuid import UUID

from . import accounts, api_keys, holds, roles
from .api_keys import ApiKey
from .base import Step, Tx, is_server_trouble
from .errors import NotFound, Refused
from .handover import Claimed, claim
from .identity import new_id
from .key_text import Peppers, mint
from .policy import Policy
from .rotation_rules import (
    RECHECK,
    Cancel,
    Complete,
    Confirm,
    Retire,
    Rotation,
    claim_deadline,
)
from .rotation_steps import SYSTEM, bring_up_to_date, mail, note, one, select, take
from .sealing import Sealer
from .tables import ROTATION_LIVE, ROTATION_OPEN, one_of

__all__ = [
    "Claimed",
    "Rotation",
    "advance",
    "cancel",
    "claim",
    "confirm",
    "find",
    "listed",
    "request",
]

BATCH = 100
"""Rotations of one transaction of `advance`."""

DECIDABLE = ("old_key_in_use", "uses_not_reported")
"""Reasons to wait that a person may overrule: the successor works, so nobody is locked out."""

FAILED = "step_failed"
"""The `blocked_reason` of a rotation of which a step raised an error; the audit says which."""

_DUE = f"""
    SELECT r.id, r.account_id
    FROM keyturn.rotations r
    JOIN keyturn.accounts a ON a.id = r.account_id
    JOIN keyturn.api_keys o ON o.id = r.old_key_id
    JOIN keyturn.api_keys n ON n.id = r.new_key_id
    LEFT JOIN keyturn.key_uses u ON u.key_id = r.new_key_id
    WHERE r.{one_of("state", ROTATION_LIVE)} AND (
        a.held <> (r.paused_at IS NOT NULL)
        OR o.deleted_at IS NOT NULL
        OR (n.deleted_at IS NOT NULL AND r.{one_of("state", ROTATION_OPEN)})
        OR (NOT a.held AND (
            r.next_check_at <= :now
            OR (r.state = 'issued' AND u.first_used_at IS NOT NULL)
            OR EXISTS (
                SELECT FROM keyturn.holds h WHERE h.account_id = a.id
                AND h.placed_at IS NOT NULL AND h.lifted_at > coalesce(r.resumed_at, r.issued_at)
            )
        ))
    )
    ORDER BY r.next_check_at, r.id LIMIT :batch
"""


@dataclass(frozen=True)
class Advanced(Step):
    """What one batch did. Operators are told of those in `attention`: they were cancelled, or wait
    for a person since this batch."""

    attention: tuple[Rotation, ...]


def request(
    tx: Tx,
    key_id: UUID,
    *,
    idempotency_key: str | None = None,
    actor: str,
    policy: Policy,
    sealer: Sealer,
    peppers: Peppers,
) -> Rotation:
    """Issue the successor of a key, sealed for its holder; the old key goes on working.

    The same request twice (`idempotency_key`), and any request while the family is in rotation, is
    the rotation that is there: never a third key. Refused as `key_unknown`, `key_deleted`,
    `key_expired`, `key_held`, `account_held`, `too_short_lived`, `role_not_allowed`,
    `idempotency_key_used`.
    """
    key = api_keys.locked(tx, str(key_id))
    known = _asked_before(tx, key, idempotency_key) or _open_one(tx, key, policy)
    if known is not None:
        return known
    key = api_keys.find(tx, str(key_id))  # what was due just now may have stopped or ended it
    _check(tx, key, policy)
    for previous in select(tx, "r.new_key_id = :key AND r.state = 'retired'", key=key.id):
        # Two predecessors that might come back would be one too many.
        take(tx, previous, Complete("rotated_again", delete_old=True), actor=actor, policy=policy)
    rotation_id = _issue(tx, key, idempotency_key, actor, policy, sealer, peppers)
    rotation = one(tx, rotation_id)
    note(tx, rotation, "issued", actor=actor, why=f"successor {rotation.new_key_id}")
    mail(tx, rotation, "issued", claim_by=rotation.claim_until.isoformat())
    return rotation


def advance(tx: Tx, policy: Policy) -> Advanced:
    """Move one batch of due rotations on; finished when it finds none to move.

    Due is what has reached its time, and what somebody else changed: a first use of a successor, a
    hold of the account, a deleted key. So a use is seen by the next run, without anything being
    polled: a run reads the live rotations once and touches only those due. Accounts that are busy,
    and rotations of which a step fails, are left to a later run.
    """
    due = {row["id"]: row["account_id"] for row in tx.rows(_DUE, batch=BATCH)}
    free = tx.execute(
        "SELECT id FROM keyturn.accounts WHERE id = ANY(:ids)"
        " ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
        ids=sorted(set(due.values())),
    ).scalars()
    accounts = set(free)
    ids = [rotation_id for rotation_id, account_id in due.items() if account_id in accounts]
    before = select(tx, "r.id = ANY(:ids) ORDER BY r.next_check_at, r.id", ids=ids)
    after = [_advance(tx, rotation, policy) for rotation in before]
    moved = sum(rotation.blocked_reason != FAILED for rotation in after)
    attention = tuple(
        now
        for was, now in zip(before, after, strict=True)
        if now.state == "cancelled" or now.blocked_reason not in (None, was.blocked_reason)
    )
    return Advanced(moved, moved == 0, attention)


def confirm(tx: Tx, rotation_id: UUID, *, actor: str, policy: Policy) -> Rotation:
    """An operator vouches for the successor, as its first use would (rule 5.4).

    For a rotation that waits for a person because the old key is still in use or uses are not
    reported, it is that person's decision: the old key is retired. Otherwise what is confirmed
    stays as it is. Refused as `rotation_unknown`, `not_claimed`, `account_held`,
    `rotation_cancelled`, and `successor_not_working` where the old key would be the last.
    """
    rotation = _locked(tx, rotation_id, policy)
    if rotation.state == "cancelled":
        raise Refused(
            "rotation_cancelled",
            f"the rotation was cancelled ({rotation.cancel_reason}); start a new one",
        )
    if rotation.state in ROTATION_OPEN:
        _check_confirmable(rotation)
    if rotation.state == "issued":
        take(tx, rotation, Confirm(tx.now(), actor), actor=actor, policy=policy)
    elif rotation.blocked_reason in DECIDABLE:
        why = f"decided by a person, although {rotation.blocked_reason}"
        take(tx, rotation, Retire(why), actor=actor, policy=policy)
    return bring_up_to_date(tx, one(tx, rotation.id), policy)


def cancel(tx: Tx, rotation_id: UUID, *, actor: str, reason: str, policy: Policy) -> Rotation:
    """End a rotation whose successor is not in use yet: it is deleted, the old key stays.

    Cancelled before, it is left as it is. Refused as `rotation_unknown`, `already_confirmed` and
    `rotation_ended`.
    """
    rotation = _locked(tx, rotation_id, policy)
    if rotation.state == "draining":
        raise Refused(
            "already_confirmed",
            f"the new key {rotation.new_key_id} is in use: deleting it would stop its user. If the"
            f" old key is not to go, leave it to its end; if it is, `keyturn keys delete"
            f" {rotation.old_key_id}`",
        )
    if rotation.state in ("retired", "completed"):
        raise Refused("rotation_ended", f"the rotation is {rotation.state}: nothing to cancel")
    if rotation.state == "issued":
        take(tx, rotation, Cancel(f"operator: {reason}"), actor=actor, policy=policy)
    return one(tx, rotation.id)


def find(tx: Tx, name: str) -> Rotation:
    """The rotation of an id; NotFound (`rotation_unknown`) if there is none."""
    try:
        found = select(tx, "r.id = :id", id=UUID(name))
    except ValueError:
        found = []
    if not found:
        raise NotFound(
            "rotation_unknown", f"there is no rotation {name!r}; `keyturn rotations list` shows all"
        )
    return found[0]


def listed(
    tx: Tx, *, state: str | None = None, account_id: UUID | None = None, limit: int = 1000
) -> list[Rotation]:
    """Rotations, the newest first; of one state or account."""
    conditions, params = ["true"], dict[str, object]()
    if state is not None:
        conditions.append("r.state = :state")
        params["state"] = state
    if account_id is not None:
        conditions.append("r.account_id = :account")
        params["account"] = account_id
    where = f"{' AND '.join(conditions)} ORDER BY r.id DESC LIMIT :limit"
    return select(tx, where, limit=limit, **params)


def _asked_before(tx: Tx, key: ApiKey, idempotency_key: str | None) -> Rotation | None:
    if idempotency_key is None:
        return None
    found = select(
        tx,
        "r.account_id = :account AND r.idempotency_key = :asked",
        account=key.account_id,
        asked=idempotency_key,
    )
    if found and found[0].old_key_id != key.id:
        raise Refused(
            "idempotency_key_used",
            f"this idempotency key was used to rotate key {found[0].old_key_id}: use another one",
        )
    return found[0] if found else None


def _open_one(tx: Tx, key: ApiKey, policy: Policy) -> Rotation | None:
    """The family's rotation that is under way, after what is due of it was done."""
    where = f"r.family_id = :family AND r.{one_of('state', ROTATION_OPEN)}"
    for rotation in select(tx, where, family=key.family_id):
        current = bring_up_to_date(tx, rotation, policy)
        if current.state in ROTATION_OPEN:
            return current
    return None


def _check(tx: Tx, key: ApiKey, policy: Policy) -> None:
    """Refuse a key that must not, or need not, have a successor."""
    account = accounts.find(tx, str(key.account_id))
    instead = "have a new key created instead"
    if key.deleted_at is not None:
        raise Refused("key_deleted", f"key {key.id} was deleted; {instead}")
    if key.status == "expired" or tx.now() >= key.expires_at:
        raise Refused("key_expired", f"key {key.id} has expired; {instead}")
    if key.held:
        raise Refused(
            "key_held",
            f"key {key.id} is disabled or was replaced; enable it first, or rotate its successor",
        )
    if account.held:
        raise Refused("account_held", f"the account {account.email} is disabled; enable it first")
    if key.expires_at - key.created_at < policy.rotation_min_life:
        raise Refused(
            "too_short_lived",
            f"keys that live less than {policy.rotation_min_life} are not rotated; {instead}",
        )
    roles.check_grant(tx, key.role, account.role)


def _issue(
    tx: Tx,
    key: ApiKey,
    idempotency_key: str | None,
    actor: str,
    policy: Policy,
    sealer: Sealer,
    peppers: Peppers,
) -> UUID:
    rotation_id, secret = new_id(), mint(policy.key_prefix)
    issued = api_keys.issue(
        tx,
        account_id=key.account_id,
        name=key.name,
        role=key.role,
        validity=key.expires_at - key.created_at,
        allowed_ips=key.allowed_ips,
        created_by=actor,
        secret=secret,
        peppers=peppers,
        family_id=key.family_id,
    )
    sealed = sealer.seal(
        secret, key_id=issued.id, account_id=key.account_id, rotation_id=rotation_id
    )
    tx.execute(
        """
        INSERT INTO keyturn.rotations (
            id, account_id, family_id, old_key_id, new_key_id, state, idempotency_key,
            requested_by, sealed, sealed_kek, sealed_until, issued_at, next_check_at)
        VALUES (:id, :account, :family, :old, :new, 'issued', :asked, :actor, :box, :kek,
            :until, :now, :until)
        """,
        id=rotation_id,
        account=key.account_id,
        family=key.family_id,
        old=key.id,
        new=issued.id,
        asked=idempotency_key,
        actor=actor,
        box=sealed.box,
        kek=sealed.kek,
        until=claim_deadline(
            issued_at=tx.now(),
            old_expires_at=key.expires_at,
            new_expires_at=issued.expires_at,
            policy=policy,
        ),
    )
    return rotation_id


def _advance(tx: Tx, rotation: Rotation, policy: Policy) -> Rotation:
    """Bring one rotation up to date; one that fails is put off, so that it stops no other."""
    savepoint = tx.session.begin_nested()
    try:
        after = bring_up_to_date(tx, rotation, policy)
    except Exception as error:
        if is_server_trouble(error):
            raise
        savepoint.rollback()
        return _put_off(tx, rotation, type(error).__name__)
    savepoint.commit()  # what this raises is no step's fault: the whole batch is tried again
    return after


def _put_off(tx: Tx, rotation: Rotation, error: str) -> Rotation:
    tx.execute(
        "UPDATE keyturn.rotations SET blocked_reason = :failed,"
        " next_check_at = :now + :pause WHERE id = :id",
        id=rotation.id,
        failed=FAILED,
        pause=RECHECK,
    )
    if rotation.blocked_reason != FAILED:
        note(tx, rotation, FAILED, actor=SYSTEM, why=error)
    return one(tx, rotation.id)


def _locked(tx: Tx, rotation_id: UUID, policy: Policy) -> Rotation:
    holds.lock_accounts(tx, [find(tx, str(rotation_id)).account_id])
    return bring_up_to_date(tx, one(tx, rotation_id), policy)


def _check_confirmable(rotation: Rotation) -> None:
    if rotation.account_held:
        raise Refused(
            "account_held", f"the account {rotation.account} is disabled; enable it first"
        )
    if not rotation.handed_over:
        raise Refused(
            "not_claimed",
            "nobody has fetched the new key: its holder runs `keyturn keys claim` with the old one",
        )
    if not rotation.new_works:
        raise Refused(
            "successor_not_working",
            f"the new key {rotation.new_key_id} does not work ({rotation.new_status}): mend that"
            " first, or the old key would be the last",
        )
