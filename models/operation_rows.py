"""Reads bulk operations: how each stands, counted from its keys."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from .base import Tx
from .errors import NotFound
from .operation_tables import OPERATION_ENDED
from .statements import Row

SHOWN = 100
"""Keys that were not rotated which a look at an operation names; it counts all."""

RATE_OVER = timedelta(seconds=30)
"""What the rate of an operation is measured over."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A plan, and how far it is carried out. Times are UTC.

    `keys` are those it takes; `waiting`, `issued`, `skipped` and `failed` what became of them, and
    `not_handed_over` those issued whose hand-over failed. `rate` is keys a second of late.
    `left_out` counts by reason what the plan did not take, `hand_overs` by sink what it did.
    `state` is that of the row, or `expired` for a plan whose time to be applied is over.
    """

    id: UUID
    state: str
    selection: Mapping[str, Any]
    planned_by: str
    planned_at: datetime
    plan_until: datetime
    applied_by: str | None
    applied_at: datetime | None
    ended_at: datetime | None
    wave: int
    waves: int
    keys: int
    waiting: int
    issued: int
    skipped: int
    failed: int
    not_handed_over: int
    rate: float
    waits_for: str | None
    stop_reason: str | None
    used_24h: int
    used_7d: int
    owners: int
    messages: int
    hand_overs: Mapping[str, int]
    left_out: Mapping[str, int]

    @property
    def done(self) -> int:
        """Keys of which it is known what became of them."""
        return self.keys - self.waiting

    @property
    def ended(self) -> bool:
        """Whether nothing more will come of it."""
        return self.state in (*OPERATION_ENDED, "expired")


@dataclass(frozen=True, kw_only=True)
class Unrotated:
    """A key that an operation did not rotate: left out, skipped or failed, and why."""

    key_id: UUID
    name: str
    account: str
    state: str
    reason: str


_SELECT = """
    SELECT o.id, CASE WHEN o.state = 'planned' AND o.plan_until <= :now THEN 'expired'
                      ELSE o.state END AS state,
           o.selection, o.facts, o.planned_by, o.planned_at, o.plan_until, o.applied_by,
           o.applied_at, o.ended_at, o.wave, o.waves, o.keys, o.waits_for, o.stop_reason, c.*
    FROM keyturn.operations o CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE p.state = 'waiting') AS waiting,
               count(*) FILTER (WHERE p.state = 'issued') AS issued,
               count(*) FILTER (WHERE p.state = 'skipped') AS skipped,
               count(*) FILTER (WHERE p.state = 'failed') AS failed,
               count(*) FILTER (WHERE r.blocked_reason = 'hand_over_failed') AS not_handed_over,
               count(*) FILTER (WHERE p.finished_at > :now - :over)
                   / greatest(1, extract(epoch FROM least(:over, :now - o.applied_at)))::float8
                   AS rate
        FROM keyturn.operation_keys p LEFT JOIN keyturn.rotations r ON r.id = p.rotation_id
        WHERE p.operation_id = o.id
    ) c
"""


def find(tx: Tx, name: str) -> Operation:
    """The plan of an id; NotFound (`plan_unknown`) if there is none."""
    try:
        row = tx.row(f"{_SELECT} WHERE o.id = :id", id=UUID(name), over=RATE_OVER)
    except ValueError:
        row = None
    if row is None:
        raise NotFound(
            "plan_unknown", f"there is no plan {name!r}; `keyturn rotations plans` shows all"
        )
    return _operation(row)


def exists(tx: Tx, name: str) -> bool:
    """Whether this is a plan's id."""
    try:
        named = UUID(name)
    except ValueError:
        return False
    return tx.row("SELECT FROM keyturn.operations WHERE id = :id", id=named) is not None


def listed(tx: Tx, *, limit: int = 100) -> list[Operation]:
    """Plans, the newest first."""
    rows = tx.rows(f"{_SELECT} ORDER BY o.id DESC LIMIT :limit", over=RATE_OVER, limit=limit)
    return [_operation(row) for row in rows]


def unrotated(tx: Tx, operation_id: UUID) -> list[Unrotated]:
    """The first SHOWN keys that were left out, skipped or failed; those that failed first."""
    rows = tx.rows(
        """
        SELECT p.key_id, coalesce(k.name, '') AS name, coalesce(a.email, '') AS account,
               CASE WHEN p.state = 'issued' THEN 'failed' ELSE p.state END AS state,
               coalesce(p.reason, r.blocked_reason) AS reason
        FROM keyturn.operation_keys p
        LEFT JOIN keyturn.api_keys k ON k.id = p.key_id
        LEFT JOIN keyturn.accounts a ON a.id = p.account_id
        LEFT JOIN keyturn.rotations r ON r.id = p.rotation_id
        WHERE p.operation_id = :id AND (p.state IN ('left_out', 'skipped', 'failed')
            OR r.blocked_reason = 'hand_over_failed')
        ORDER BY array_position(ARRAY['failed', 'issued', 'skipped', 'left_out'], p.state), p.place
        LIMIT :shown
        """,
        id=operation_id,
        shown=SHOWN,
    )
    return [Unrotated(**row) for row in rows]


def _operation(row: Row) -> Operation:
    given = dict(row)
    facts = given.pop("facts")
    return Operation(**given, **facts)
