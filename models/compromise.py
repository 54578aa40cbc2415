"""Keys that others know: stopped at once, then what is to follow (rule 5.9).

The hold commits first, alone, with a row of `compromises` that says what is still to be done. What
follows it may fail and be repeated, by the flow and by whoever asks again; the hold stands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from . import api_keys, holds, outbox
from .api_keys import ApiKey
from .base import Database, Step, Tx, is_server_trouble
from .errors import Refused
from .handover import hand_over
from .holds import Cause
from .key_text import Peppers, Secret
from .policy import Policy
from .predicate import HELD
from .rotation_policy import chosen
from .rotation_requests import latest, replace_compromised, request
from .rotation_rows import offer_of, one, select
from .rotation_rules import Cancel, Rotation
from .rotation_steps import bring_up_to_date, take
from .sealing import Sealer
from .tables import ROTATION_OPEN, one_of

KIND = "compromised"
FLOW = "keys.follow_compromises"

BATCH = 100
RETRY_FIRST, RETRY_LONGEST = timedelta(seconds=10), timedelta(minutes=10)
"""The pauses between tries at what follows a hold; each is twice the one before."""


@dataclass(frozen=True)
class Compromise:
    """A key that others know, and what followed its hold. Times are UTC.

    While `open`, something is still to be done. `outcome` says what was: `held` (nothing else was
    asked for), `issued` (the rotation has the successor), or the code of a refusal.
    """

    key_id: UUID
    account_id: UUID
    actor: str
    reported_at: datetime
    issue: bool
    state: Literal["open", "done"]
    outcome: str | None
    rotation_id: UUID | None
    attempts: int


@dataclass(frozen=True)
class Replacement:
    """The successor of a key that others know. `secret` is its text, for this once, where the
    operator was the first to ask for it."""

    rotation: Rotation
    secret: Secret


_SELECT = """
    SELECT key_id, account_id, actor, reported_at, issue, state, outcome, rotation_id, attempts
    FROM keyturn.compromises
"""


def find(tx: Tx, key_id: UUID) -> Compromise | None:
    """What is known of a key's compromise; None where nobody has reported one."""
    row = tx.row(f"{_SELECT} WHERE key_id = :key", key=key_id)
    return None if row is None else Compromise(**row)


def wants_successor(tx: Tx, key_id: UUID, policy: Policy) -> bool:
    """Whether a mere report is to be followed by a successor: what the key's policy says."""
    name = tx.scalar(
        """
        SELECT coalesce(k.rotation_policy, a.rotation_policy, r.rotation_policy)
        FROM keyturn.api_keys k
        JOIN keyturn.accounts a ON a.id = k.account_id
        JOIN keyturn.roles r ON r.name = k.role
        WHERE k.id = :key
        """,
        key=key_id,
    )
    return chosen(policy.rotation_policies, name).on_compromise == "hold_and_issue"


def stop(tx: Tx, key_id: UUID, cause: Cause, *, issue: bool, policy: Policy) -> bool:
    """Hold a key of a locked account, and the retired keys of its family, for good.

    Nothing lifts these holds. What is to follow is written down beside them, so that it happens
    whoever dies now. False where this cause's source had stopped the key before.
    """
    first_report = find(tx, key_id) is None
    placed = holds.place(tx, holds.on_key(key_id), cause, policy)
    retired = tx.execute(
        """
        SELECT o.id FROM keyturn.api_keys k JOIN keyturn.api_keys o USING (family_id)
        WHERE k.id = :key AND o.id <> k.id AND o.status = 'retired' ORDER BY o.id
        """,
        key=key_id,
    ).scalars()
    for other in list(retired):
        reason = f"of the family of key {key_id}, which is compromised"
        also = Cause(source=cause.source, kind=KIND, actor=cause.actor, reason=reason)
        holds.place(tx, holds.on_key(other), also, policy)
    opened = tx.count(
        f"""
        INSERT INTO keyturn.compromises AS c
            (key_id, account_id, actor, reported_at, issue, next_attempt_at)
        SELECT id, account_id, :actor, :now, :issue, :now FROM keyturn.api_keys WHERE id = :key
        ON CONFLICT (key_id) DO UPDATE SET issue = true, state = 'open', attempts = 0,
            next_attempt_at = :now, outcome = NULL, rotation_id = NULL
        WHERE excluded.issue AND (c.state = 'done' OR NOT c.issue) AND NOT {_ISSUED}
        """,
        key=key_id,
        actor=cause.actor,
        issue=issue,
    )
    if opened:
        tx.ring(FLOW)
    if placed and first_report:
        _tell(tx, api_keys.find(tx, str(key_id)), issue=issue, actor=cause.actor)
    return placed


_ISSUED = """
    EXISTS (
        SELECT FROM keyturn.rotations r
        WHERE r.id = c.rotation_id AND (r.state <> 'cancelled' OR r.reissued_as IS NOT NULL)
    )
"""


def due(tx: Tx) -> Sequence[UUID]:
    """Keys whose hold something is still to follow, the longest due first, and always in the same
    order. An account that is held waits: nothing can be issued there until it is enabled."""
    return (
        tx.execute(
            f"""
            SELECT c.key_id FROM keyturn.compromises c
            JOIN keyturn.accounts a ON a.id = c.account_id
            WHERE c.state = 'open' AND c.next_attempt_at <= :now AND NOT {HELD}
            ORDER BY c.next_attempt_at, c.key_id LIMIT :batch
            """,
            batch=BATCH,
        )
        .scalars()
        .all()
    )


def follow(tx: Tx, key_id: UUID, *, policy: Policy, sealer: Sealer, peppers: Peppers) -> Compromise:
    """Do what is to follow the hold of a key, once: what is done stays as it is.

    An unfetched successor of the key goes: it was made for whoever shows a key that others know.
    So does one that was fetched and is not in use, or that was asked for twice: a thief may have
    been first. One in use stays, and then the family needs no other: a leak of an old key must not
    stop those who have changed over. Otherwise, where it was asked for, a successor is issued and
    sealed: an operator fetches it, as nobody proves anything by the old key. One that was withdrawn
    since, or is overdue to be, is followed by another.

    Refused as `account_held` while nothing can be issued; every other refusal is the outcome.
    """
    holds.lock_accounts(tx, [api_keys.find(tx, str(key_id)).account_id])
    found = find(tx, key_id)
    if found is None:
        raise Refused("not_compromised", f"nobody has reported that key {key_id} is compromised")
    if found.state == "done" and not _lapsed(tx, found, policy):
        return found
    outcome, rotation_id = _follow(tx, found, policy, sealer, peppers)
    tx.execute(
        """
        UPDATE keyturn.compromises SET state = 'done', outcome = :outcome, rotation_id = :rotation
        WHERE key_id = :key
        """,
        key=key_id,
        outcome=outcome,
        rotation=rotation_id,
    )
    if outcome not in ("held", "issued"):
        tx.alarm("compromised_key_not_replaced", key=str(key_id), why=outcome)
    after = find(tx, key_id)
    assert after is not None
    return after


def follow_due(database: Database, policy: Policy, sealer: Sealer, peppers: Peppers) -> Step:
    """Follow what is due, each key in a transaction of its own: one that fails is put off, and
    stops no other. What the server failed at is raised."""

    def try_one(key_id: UUID) -> None:
        try:
            database.run(
                lambda tx: follow(tx, key_id, policy=policy, sealer=sealer, peppers=peppers)
            )
        except Exception as error:
            if is_server_trouble(error):
                raise
            why = error.code if isinstance(error, Refused) else type(error).__name__
            database.run(lambda tx: put_off(tx, key_id, why))

    keys = database.run(due)
    for key_id in keys:
        try_one(key_id)
    return Step(len(keys), finished=not keys)


def put_off(tx: Tx, key_id: UUID, error: str) -> None:
    """Try what follows a hold again after a pause that grows; operators are told."""
    tx.execute(
        """
        UPDATE keyturn.compromises SET attempts = attempts + 1,
            next_attempt_at = :now + least(:first * power(2, least(attempts, 20)), :longest)
        WHERE key_id = :key AND state = 'open'
        """,
        key=key_id,
        first=RETRY_FIRST,
        longest=RETRY_LONGEST,
    )
    tx.alarm("compromised_key_not_replaced", key=str(key_id), why=error)


def fetch(tx: Tx, key_id: UUID, *, actor: str, sealer: Sealer) -> Replacement:
    """The successor's text, once, for the operator who replaces a key that others know.

    Refused as `already_handed_over`, and as what kept a successor from being issued.
    """
    holds.lock_accounts(tx, [api_keys.find(tx, str(key_id)).account_id])
    found = find(tx, key_id)
    if found is None or found.rotation_id is None:
        raise _not_replaced(key_id, found)
    rotation = latest(tx, one(tx, found.rotation_id))
    secret = None
    if rotation.claimable and not rotation.account_held:
        offer = offer_of(tx, rotation.id)
        secret = hand_over(tx, offer, actor=actor, sealer=sealer, why="by an operator")
    if secret is None:
        raise Refused(
            "already_handed_over",
            f"key {key_id} was replaced by {rotation.new_key_id}, and its text was handed over"
            f" before; if it was lost, `keyturn rotations reissue {rotation.id}`",
        )
    return Replacement(one(tx, rotation.id), secret)


def _follow(
    tx: Tx, found: Compromise, policy: Policy, sealer: Sealer, peppers: Peppers
) -> tuple[str, UUID | None]:
    base = _withdraw(tx, found.key_id, actor=found.actor, policy=policy)
    if not found.issue:
        return "held", None
    savepoint = tx.savepoint()
    try:
        rotation = _issue(tx, base, found.actor, policy, sealer, peppers)
    except Refused as refused:
        tx.undo(savepoint)
        if refused.code == "account_held":
            raise
        return refused.code, None
    savepoint.commit()
    return "issued", rotation.id


def _issue(
    tx: Tx, key: ApiKey, actor: str, policy: Policy, sealer: Sealer, peppers: Peppers
) -> Rotation:
    if key.held:
        return replace_compromised(
            tx, key, actor=actor, policy=policy, peppers=peppers, sealer=sealer
        )
    # The key was itself to replace one that works and that nobody else knows: its holder can fetch.
    return request(
        tx,
        key.id,
        actor=actor,
        policy=policy,
        sealer=sealer,
        peppers=peppers,
        reason="compromised",
    )


def _lapsed(tx: Tx, found: Compromise, policy: Policy) -> bool:
    """Whether the successor that was issued is to be had no more, or should not be: an overdue text
    is handed to nobody, whether or not a flow has seen to it yet."""
    if found.rotation_id is None:
        return False
    rotation = bring_up_to_date(tx, latest(tx, one(tx, found.rotation_id)), policy)
    return rotation.state == "cancelled"


def _withdraw(tx: Tx, key_id: UUID, *, actor: str, policy: Policy) -> ApiKey:
    """End the family's rotation as far as it leads to or from what others know.

    Returns the key that a successor is to be issued for: this one, or the one it was to replace.
    """
    where = f"r.{one_of('state', ROTATION_OPEN)} AND :key IN (r.old_key_id, r.new_key_id)"
    for rotation in select(tx, where, key=key_id):
        is_successor = rotation.new_key_id == key_id
        if is_successor or rotation.new_first_used_at is None or _contested(tx, rotation):
            take(tx, rotation, Cancel("key_compromised"), actor=actor, policy=policy)
        else:
            bring_up_to_date(tx, rotation, policy)
        if is_successor:
            return api_keys.find(tx, str(rotation.old_key_id))
    return api_keys.find(tx, str(key_id))


def _contested(tx: Tx, rotation: Rotation) -> bool:
    """Whether two have asked for the successor: then one of them may have been a thief."""
    return bool(
        tx.scalar(
            "SELECT alarmed_at IS NOT NULL FROM keyturn.rotations WHERE id = :id", id=rotation.id
        )
    )


def _not_replaced(key_id: UUID, found: Compromise | None) -> Refused:
    if found is None:
        return Refused("not_compromised", f"nobody has reported that key {key_id} is compromised")
    code = found.outcome or "not_issued"
    return Refused(
        code if code != "held" else "not_issued",
        _WHY_NOT.get(code, "it has no successor yet: give the same command again"),
    )


_WHY_NOT = {
    "already_replaced": "the key is stopped; its successor is in use and works on. If that one is "
    "known to others too, give the same command for it",
    "key_deleted": "the key was deleted: have a new key created",
    "key_expired": "the key is stopped, and had expired: have a new key created",
    "too_short_lived": "the key is stopped; it lived too short to be rotated: have a new key "
    "created",
    "role_not_allowed": "the key is stopped; its role is not given any more: have a new key "
    "created, with a role that the account may have",
}
"""Why there is no successor, and what to do, by the outcome."""


def _tell(tx: Tx, key: ApiKey, *, issue: bool, actor: str) -> None:
    tx.alarm("key_compromised", key=str(key.id), account=key.account, by=actor)
    payload = {
        "account": key.account,
        "key": {
            "id": str(key.id),
            "name": key.name,
            "hint": key.hint,
            "expires_at": key.expires_at.isoformat(),
        },
        "issue": issue,
    }
    outbox.add(
        tx,
        outbox.MAIL,
        "key.compromised",
        payload,
        account_id=key.account_id,
        priority=outbox.URGENT,
    )
