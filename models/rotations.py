"""Rotation: the new key is issued and seen in use before the old one goes (rule 5).

Whoever changes a rotation holds the row of its account. The states, and what leads from one to the
next, stand in `rotation_rules`; how a step is written down, in `rotation_steps`; how the holder
gets the new key, in `handover`.
"""

from dataclasses import dataclass

from .base import Step, Tx
from .handover import Claimed, claim
from .holds import CONCERNS, JOINED
from .policy import Policy
from .predicate import HELD
from .rotation_decisions import cancel, confirm, reissue, retry, undo
from .rotation_mails import tell
from .rotation_requests import Asked, answer, replace_compromised, request
from .rotation_rows import find, listed, select
from .rotation_rules import FAILED, Reason, Rotation
from .rotation_steps import attempt
from .tables import ROTATION_LIVE, ROTATION_OPEN, one_of

__all__ = [
    "Asked",
    "Claimed",
    "Reason",
    "Rotation",
    "advance",
    "answer",
    "cancel",
    "claim",
    "confirm",
    "find",
    "listed",
    "reissue",
    "replace_compromised",
    "request",
    "retry",
    "undo",
]

BATCH = 100
"""Rotations of one transaction of `advance`."""

_DUE = f"""
    SELECT r.id, r.account_id
    FROM keyturn.rotations r
    JOIN keyturn.accounts a ON a.id = r.account_id
    JOIN keyturn.api_keys o ON o.id = r.old_key_id
    JOIN keyturn.api_keys n ON n.id = r.new_key_id
    LEFT JOIN keyturn.key_uses u ON u.key_id = r.new_key_id
    WHERE r.{one_of("state", ROTATION_LIVE)} AND (
        {HELD} <> (r.paused_at IS NOT NULL)
        OR o.deleted_at IS NOT NULL
        OR (n.deleted_at IS NOT NULL AND r.{one_of("state", ROTATION_OPEN)})
        OR (NOT {HELD} AND (
            r.next_check_at <= :now
            OR (r.state = 'issued' AND u.first_used_at IS NOT NULL)
            OR EXISTS (
                SELECT FROM keyturn.holds h WHERE {CONCERNS}
                AND h.placed_at IS NOT NULL
                AND h.lifted_at > greatest({JOINED}, coalesce(r.resumed_at, r.issued_at))
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
    after = attempt(tx, before, policy)
    tell(tx, zip(before, after, strict=True))
    moved = sum(rotation.blocked_reason != FAILED for rotation in after)
    attention = tuple(
        now
        for was, now in zip(before, after, strict=True)
        if now.state == "cancelled" or now.blocked_reason not in (None, was.blocked_reason)
    )
    return Advanced(moved, moved == 0, attention)
