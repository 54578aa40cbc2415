"""New keys on their way to a sink: planned with the rotation, leased, sent outside, settled.

The text is sealed in the rotation until the sink has it, and gone with the receipt. Until then the
holder of the old key may claim it, which ends the hand-over. A receipt confirms nothing: the first
use of the new key does.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from . import holds, outbox
from .base import Tx
from .policy import Policy
from .rotation_policy import CLAIM, UNDECIDED, chosen
from .rotation_rows import one
from .rotation_rules import DELIVERED_BY, HAND_OVER_FAILED, Rotation
from .rotation_steps import SYSTEM, bring_up_to_date, note
from .sealing import BrokenSeal, Sealed, Sealer, UnknownKek
from .sinks import HandOver, Outcome, Promoting, Sink

FLOW: Final = "rotations.hand_over"
TRIES: Final = 6
RETRY_FIRST: Final = timedelta(seconds=10)
"""The pause after the first try; it doubles with each, give or take a quarter."""

WAITING: Final = "waiting"
DELIVERED: Final = "delivered"
"""The sink has the key, and puts it in the old one's place once the rotation is confirmed."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far the hand-over of a new key to its sink is. Times are UTC.

    `next_try` is when it is tried, or looked at by another worker; None where it will not be.
    `error` is that of the last try, `receipt` what the sink said where it put the key.
    """

    sink: str
    state: str
    tries: int
    next_try: datetime | None
    error: str | None
    receipt: str | None
    delivered_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Leased:
    """A hand-over that is this worker's to try until the lease ends; `sealed` once it has begun."""

    hand_over: HandOver
    sink: str
    state: str
    fence: int
    sealed: Sealed | None


def plan(tx: Tx, rotation: Rotation, policy: Policy) -> Rotation:
    """Write down to which sink the new key of a rotation goes, unless its holder is to claim it.

    Where the rotation policies are not known, `lease` decides that by a worker's.
    """
    known = policy.rotation_policies
    sink = chosen(known, rotation.policy_name).sink if known else UNDECIDED
    if sink == CLAIM:
        return rotation
    tx.execute(
        """
        WITH planned AS (
            INSERT INTO keyturn.hand_overs (rotation_id, sink, due_at)
            VALUES (:rotation, :sink, :now)
        )
        UPDATE keyturn.rotations SET sink = :sink WHERE id = :rotation
        """,
        rotation=rotation.id,
        sink=sink,
    )
    tx.ring(FLOW)
    return replace(rotation, sink=sink)


def progress(tx: Tx, rotation_id: UUID) -> Progress | None:
    """How the hand-over of a rotation stands; None where its new key is fetched."""
    row = tx.row(
        """
        SELECT h.sink, h.attempts AS tries, h.error, h.receipt, h.delivered_at,
            CASE WHEN h.state = 'waiting' AND o.is_over THEN 'skipped' ELSE h.state END AS state,
            CASE WHEN (h.state = 'waiting' AND NOT o.is_over)
                      OR (h.state = 'delivered' AND r.confirmed_at IS NOT NULL)
                 THEN h.due_at END AS next_try
        FROM keyturn.hand_overs h JOIN keyturn.rotations r ON r.id = h.rotation_id
        CROSS JOIN LATERAL (SELECT r.claimed_at IS NOT NULL OR r.state <> 'issued' AS is_over) o
        WHERE h.rotation_id = :id AND h.sink <> :fetched
        """,
        id=rotation_id,
        fetched=CLAIM,
    )
    return None if row is None else Progress(**row)


def due(tx: Tx, resting: Collection[str] = ()) -> UUID | None:
    """The rotation whose hand-over has been due for the longest, but to sinks that are resting."""
    found = tx.scalar(
        """
        SELECT h.rotation_id
        FROM keyturn.hand_overs h JOIN keyturn.rotations r ON r.id = h.rotation_id
        WHERE h.state IN ('waiting', 'delivered') AND h.due_at <= :now
          AND h.sink <> ALL(CAST(:resting AS text[]))
          AND (h.state = 'waiting' OR r.confirmed_at IS NOT NULL OR r.ended_at IS NOT NULL)
        ORDER BY h.due_at, h.rotation_id LIMIT 1
        """,
        resting=list(resting),
    )
    return found if isinstance(found, UUID) else None


def lease(tx: Tx, rotation_id: UUID, policy: Policy) -> Leased | None:
    """Claim a hand-over for one try, which costs an attempt.

    What is due of its rotation is done first. None where there is nothing to hand over any more,
    where somebody else has it, where all tries were begun and none came back, or where only now its
    sink was chosen.
    """
    rotation = bring_up_to_date(tx, _locked(tx, rotation_id), policy)
    if rotation.sink == UNDECIDED:
        _choose(tx, rotation, policy)
        return None
    row = tx.row(
        """
        UPDATE keyturn.hand_overs h
        SET attempts = h.attempts + 1, fence = h.fence + 1, due_at = :now + :lease
        FROM keyturn.rotations r JOIN keyturn.accounts a ON a.id = r.account_id
        WHERE h.rotation_id = :id AND r.id = h.rotation_id
          AND h.state IN ('waiting', 'delivered') AND h.due_at <= :now
        RETURNING h.sink, h.state, h.fence, h.attempts, r.sealed, r.sealed_kek, a.public_key
        """,
        id=rotation_id,
        lease=policy.lease,
    )
    if row is None:
        return None
    leased = Leased(
        hand_over=_facts(rotation, row["public_key"]),
        sink=row["sink"],
        state=row["state"],
        fence=row["fence"],
        sealed=Sealed(row["sealed_kek"], row["sealed"]) if row["sealed"] is not None else None,
    )
    over = _over(tx, rotation, leased)
    if over is not None:
        _end(tx, leased, "skipped", over)
        return None
    if row["attempts"] > TRIES:
        why = f"{TRIES} tries were begun, and the worker died in each"
        _fail(tx, rotation, leased, why, policy)
        return None
    return leased


def _choose(tx: Tx, rotation: Rotation, policy: Policy) -> None:
    """What the key's policy says of a rotation that a product asked for."""
    sink = chosen(policy.rotation_policies, rotation.policy_name).sink
    tx.execute(
        """
        WITH decided AS (
            UPDATE keyturn.hand_overs SET sink = :sink,
                state = CASE WHEN :fetched THEN 'skipped' ELSE state END,
                error = CASE WHEN :fetched THEN 'the holder of the old key fetches the new one' END
            WHERE rotation_id = :id AND sink = :undecided
        )
        UPDATE keyturn.rotations SET sink = :sink WHERE id = :id AND sink = :undecided
        """,
        id=rotation.id,
        sink=sink,
        fetched=sink == CLAIM,
        undecided=UNDECIDED,
    )


def attempt(sink: Sink, leased: Leased, sealer: Sealer) -> Outcome:
    """Give the key to its sink, or put it in the old one's place there; outside a transaction."""
    hand_over = leased.hand_over
    if leased.state == DELIVERED:
        return sink.promote(hand_over) if isinstance(sink, Promoting) else Outcome(state="taken")
    assert leased.sealed is not None  # `lease` ends what has nothing left to hand over
    try:
        secret = sealer.open(
            leased.sealed,
            key_id=hand_over.key_id,
            account_id=hand_over.account_id,
            rotation_id=hand_over.rotation_id,
        )
    except (UnknownKek, BrokenSeal) as error:
        return Outcome(state="failed", error=str(error))
    return sink.deliver(hand_over, secret)


def settle(
    tx: Tx, leased: Leased, outcome: Outcome, policy: Policy, *, promotes: bool = False
) -> bool:
    """Write down what became of a try; True where the sink has the key.

    A hand-over that was leased anew meanwhile is left alone. Where all tries are used up, or
    another one would end the same, the rotation waits for a person, and its owner and the operators
    are told.
    """
    rotation = _locked(tx, leased.hand_over.rotation_id)
    if outcome.state == "taken":
        return _taken(tx, rotation, leased, outcome, promotes)
    attempts = tx.scalar(
        "SELECT attempts FROM keyturn.hand_overs"
        " WHERE rotation_id = :id AND fence = :fence AND state = :state",
        **_claimed(leased),
    )
    error = outcome.error or "the sink gave no reason"
    if attempts is not None and (outcome.state == "failed" or attempts >= TRIES):
        _fail(tx, rotation, leased, error, policy)
    elif attempts is not None:
        tx.execute(
            """
            UPDATE keyturn.hand_overs SET error = :error, fence = fence + 1,
                due_at = :now + :first * power(2, attempts - 1) * (0.75 + random() / 2)
            WHERE rotation_id = :id AND fence = :fence AND state = :state
            """,
            error=error,
            first=RETRY_FIRST,
            **_claimed(leased),
        )
    return False


def give_back(tx: Tx, leased: Leased) -> None:
    """Take back the attempt of a try that the database, and not the sink, made end."""
    tx.execute(
        "UPDATE keyturn.hand_overs SET attempts = attempts - 1, due_at = :now"
        " WHERE rotation_id = :id AND fence = :fence AND state = :state",
        **_claimed(leased),
    )


def retry(tx: Tx, rotation_id: UUID) -> bool:
    """Try a failed hand-over anew, with all its tries; False where none has failed.

    The caller has locked the account.
    """
    again = tx.count(
        """
        UPDATE keyturn.hand_overs SET attempts = 0, due_at = :now, error = NULL,
            state = CASE WHEN delivered_at IS NULL THEN 'waiting' ELSE 'delivered' END
        WHERE rotation_id = :id AND state = 'failed'
        """,
        id=rotation_id,
    )
    if again:
        _unblock(tx, rotation_id)
        tx.ring(FLOW)
    return bool(again)


def _locked(tx: Tx, rotation_id: UUID) -> Rotation:
    account_id = tx.scalar(
        "SELECT account_id FROM keyturn.rotations WHERE id = :id", id=rotation_id
    )
    holds.lock_accounts(tx, [account_id])
    return one(tx, rotation_id)


def _facts(rotation: Rotation, public_key: dict[str, str] | None) -> HandOver:
    return HandOver(
        rotation_id=rotation.id,
        family_id=rotation.family_id,
        account_id=rotation.account_id,
        account=rotation.account,
        key_id=rotation.new_key_id,
        key_name=rotation.name,
        key_hint=rotation.new_hint,
        expires_at=rotation.new_expires_at,
        old_key_id=rotation.old_key_id,
        old_expires_at=rotation.old_expires_at,
        public_key=public_key,
    )


def _over(tx: Tx, rotation: Rotation, leased: Leased) -> str | None:
    """Why there is nothing to do for the sink any more."""
    if rotation.state == "cancelled":
        return f"the rotation was cancelled ({rotation.cancel_reason})"
    if leased.state == WAITING:
        if rotation.claimed_at is not None:
            return "the holder of the old key has claimed the new one"
        return None if leased.sealed is not None else "the sealed key is gone"
    if rotation.confirmed_at is None:
        return "the rotation ended unconfirmed"
    later = tx.row(
        """
        SELECT FROM keyturn.rotations
        WHERE family_id = :family AND issued_at > :issued AND confirmed_at IS NOT NULL LIMIT 1
        """,
        family=rotation.family_id,
        issued=rotation.issued_at,
    )
    return None if later is None else "a later rotation of the key was confirmed"


def _taken(tx: Tx, rotation: Rotation, leased: Leased, outcome: Outcome, promotes: bool) -> bool:
    first = leased.state == WAITING
    if not _end(tx, leased, DELIVERED if first and promotes else "done", None, outcome.receipt):
        return False
    for told in outcome.messages:
        outbox.add(tx, told.channel, told.kind, dict(told.payload), account_id=rotation.account_id)
    if first:
        tx.execute(
            """
            UPDATE keyturn.rotations
            SET claimed_at = :now, claimed_by = :by, sealed = NULL, sealed_kek = NULL,
                blocked_reason = NULL, next_check_at = :old_end
            WHERE id = :id AND state = 'issued' AND claimed_at IS NULL
            """,
            id=rotation.id,
            by=f"{DELIVERED_BY}{leased.sink}",
            old_end=rotation.old_expires_at,
        )
    verb = "handed_over" if first else "promoted"
    note(tx, rotation, verb, actor=SYSTEM, why=f"sink {leased.sink}: {outcome.receipt}")
    return True


def _end(tx: Tx, leased: Leased, state: str, error: str | None, receipt: str | None = None) -> bool:
    """Move a leased hand-over on; False where it was leased anew meanwhile."""
    return bool(
        tx.count(
            """
            UPDATE keyturn.hand_overs
            SET state = :next, error = :error, receipt = coalesce(:receipt, receipt), attempts = 0,
                due_at = :now, fence = fence + 1,
                delivered_at = CASE WHEN :receipt IS NULL THEN delivered_at
                                    ELSE coalesce(delivered_at, :now) END
            WHERE rotation_id = :id AND fence = :fence AND state = :state
            """,
            next=state,
            error=error,
            receipt=receipt,
            **_claimed(leased),
        )
    )


def _fail(tx: Tx, rotation: Rotation, leased: Leased, error: str, policy: Policy) -> None:
    if _end(tx, leased, "failed", error):
        note(tx, rotation, HAND_OVER_FAILED, actor=SYSTEM, why=f"sink {leased.sink}: {error}")
        tx.alarm(HAND_OVER_FAILED, rotation=str(rotation.id), sink=leased.sink, why=error)
        bring_up_to_date(tx, one(tx, rotation.id), policy)  # blocks it, and tells its owner


def _unblock(tx: Tx, rotation_id: UUID) -> None:
    tx.execute(
        "UPDATE keyturn.rotations SET blocked_reason = NULL"
        " WHERE id = :id AND blocked_reason = :reason",
        id=rotation_id,
        reason=HAND_OVER_FAILED,
    )


def _claimed(leased: Leased) -> dict[str, object]:
    return {
        "id": leased.hand_over.rotation_id,
        "fence": leased.fence,
        "state": leased.state,
    }
