"""Scheduled rotations are started when their time has come, and not faster than is bearable."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from . import api_keys, rotations
from .base import Database, Tx, is_server_trouble
from .errors import Refused
from .key_text import Peppers
from .policy import Policy
from .predicate import HELD
from .rotation_policy import chosen
from .rotation_schedule import NAME, WINDOW_CLOSED, Planned, planned_for
from .rotation_steps import SYSTEM
from .sealing import Sealer
from .statements import Row

BATCH = 500
"""Due keys that one transaction looks at."""
HELD_AGAIN = timedelta(hours=1)
"""When a held key, or one of a held account, is looked at again."""
REFUSED_AGAIN = timedelta(days=1)
"""The same for one whose rotation is refused, or whose family is in rotation still."""
FAILED_AGAIN = timedelta(minutes=1)
"""The same after an error."""
FAILED = "failed"

REASONS = {
    WINDOW_CLOSED: "the window of its policy does not open while it lives",
    "outside_window": "the window of its policy is closed",
    "account_held": "its account is disabled",
    "key_held": "it is disabled",
    "too_short_lived": "it lives too short to be rotated",
    "role_not_allowed": "its role may no longer be given to a key of its account",
    "in_rotation": "the rotation that made it has not ended",
    FAILED: "the attempt to rotate it failed",
}
"""Why a key whose time has come is not in rotation, by the `reason` in its row."""


@dataclass(frozen=True)
class Gone:
    """The key ended, or its policy does not rotate it: nothing is planned for it."""


@dataclass(frozen=True)
class Later:
    """Not now: at this time, or (None) not at all; with the reason where it was due."""

    planned: Planned
    at: datetime | None
    reason: str | None = None


@dataclass(frozen=True)
class Start:
    """It is time."""

    planned: Planned


Decision = Gone | Later | Start


@dataclass(frozen=True)
class Looked:
    """How many plans a look at the due ones changed, and the keys to be started by now."""

    changed: int
    to_start: Sequence[UUID]


@dataclass(frozen=True)
class Scheduled:
    """When a key will be rotated, by which policy. Times are UTC.

    `at` None: it will not be, for `reason`. Where `rotation_id` is set that was done.
    """

    policy: str
    at: datetime | None
    reason: str | None
    rotation_id: UUID | None


_FACTS = f"""
    coalesce(s.key_id, k.id) AS id, k.created_at, k.expires_at, k.deleted_at, k.status,
    k.held AS key_held, {HELD} AS account_held, {NAME} AS name,
    s.reason, s.next_at, s.rotation_id, coalesce(s.tries, 0) AS tries
"""
_OWNERS = """
    LEFT JOIN keyturn.accounts a ON a.id = k.account_id
    LEFT JOIN keyturn.roles o ON o.name = k.role
"""
_DUE = f"""
    SELECT {_FACTS} FROM keyturn.rotation_schedule s
    LEFT JOIN keyturn.api_keys k ON k.id = s.key_id {_OWNERS}
    WHERE s.next_at <= :now ORDER BY s.next_at, s.key_id LIMIT :batch
"""
_ONE = f"""
    SELECT {_FACTS} FROM keyturn.api_keys k
    LEFT JOIN keyturn.rotation_schedule s ON s.key_id = k.id {_OWNERS} WHERE k.id = :key
"""


def look(tx: Tx, policy: Policy) -> Looked:
    """Look at the plans that are due: those of one batch, the longest due first.

    What is not to be started is written down, with its time and reason. To be started are as many
    as one minute may still have (`rotation_starts`), all processes together.
    """
    due = tx.rows(_DUE, batch=BATCH)
    if not due:
        return Looked(0, ())
    now = tx.now()
    decided = [(row["id"], decide(row, policy, now)) for row in due]
    changed = _forget(tx, [key for key, one in decided if isinstance(one, Gone)])
    later = {key: one for key, one in decided if isinstance(one, Later)}
    changed += _put_off(tx, later)
    started = tx.scalar(
        "SELECT count(*) FROM keyturn.rotation_schedule"
        " WHERE started_at > :now - interval '1 minute'"
    )
    ready = [key for key, one in decided if isinstance(one, Start)]
    return Looked(changed, ready[: max(0, policy.rotation_starts - started)])


def attempt(
    database: Database, key_id: UUID, *, policy: Policy, sealer: Sealer, peppers: Peppers
) -> bool:
    """Start the scheduled rotation of a key, or note why not; False where there was nothing to do.

    Raises what means trouble with the server.
    """
    found = partial(start, key_id=key_id, policy=policy, sealer=sealer, peppers=peppers)
    try:
        return database.run(found)
    except Refused as refused:
        reason, error = refused.code, None
    except Exception as raised:
        if is_server_trouble(raised):
            raise
        reason, error = FAILED, type(raised).__name__

    def note(tx: Tx) -> None:
        if put_off(tx, key_id, reason) and error:
            tx.alarm("scheduled_rotation_failed", key=str(key_id), error=error)

    database.run(note)
    return True


def start(tx: Tx, key_id: UUID, *, policy: Policy, sealer: Sealer, peppers: Peppers) -> bool:
    """Start the scheduled rotation of a key; False where it is no longer to be started.

    Refused as `rotations.request` is.
    """
    api_keys.locked(tx, str(key_id))
    row = tx.row(_ONE, key=key_id)
    if row is None or row["rotation_id"] or row["next_at"] is None:
        return False
    if not isinstance(decision := decide(row, policy, tx.now()), Start):
        return False
    again = f":{row['tries']}" if row["tries"] else ""
    rotation = rotations.request(
        tx,
        key_id,
        idempotency_key=f"scheduled:{key_id}:{row['expires_at'].isoformat()}{again}",
        actor=SYSTEM,
        policy=policy,
        sealer=sealer,
        peppers=peppers,
        reason="scheduled",
    )
    if rotation.old_key_id != key_id:
        _put_off(tx, {key_id: Later(decision.planned, tx.now() + REFUSED_AGAIN, "in_rotation")})
        return False
    tx.execute(
        """
        UPDATE keyturn.rotation_schedule
        SET rotation_id = :rotation, started_at = :now, next_at = NULL, reason = NULL
        WHERE key_id = :key
        """,
        rotation=rotation.id,
        key=key_id,
    )
    return True


def put_off(tx: Tx, key_id: UUID, reason: str) -> bool:
    """Note why a key's rotation could not be started, and try again later; False where the same
    was the reason before."""
    held = reason in ("key_held", "account_held")
    before = tx.scalar(
        "SELECT reason FROM keyturn.rotation_schedule WHERE key_id = :key", key=key_id
    )
    tx.execute(
        """
        UPDATE keyturn.rotation_schedule SET next_at = :now + :pause, reason = :reason
        WHERE key_id = :key AND rotation_id IS NULL
        """,
        key=key_id,
        reason=reason,
        pause=FAILED_AGAIN if reason == FAILED else HELD_AGAIN if held else REFUSED_AGAIN,
    )
    return bool(before != reason)


def next_for(tx: Tx, key_id: UUID, policy: Policy) -> Scheduled | None:
    """When the schedule rotates a key; None where its policy does not, or the key has ended."""
    row = tx.row(_ONE, key=key_id)
    if row is None or isinstance(decision := decide(row, policy, tx.now()), Gone):
        return None
    planned = decision.planned
    if row["rotation_id"]:
        return Scheduled(planned.policy, None, None, row["rotation_id"])
    if isinstance(decision, Start):
        return Scheduled(planned.policy, planned.at, row["reason"], None)
    return Scheduled(planned.policy, decision.at, decision.reason, None)


def decide(row: Row, policy: Policy, now: datetime) -> Decision:
    """What is to be done with a plan, from the facts of its key as they are now."""
    if row["created_at"] is None or row["deleted_at"] is not None or now >= row["expires_at"]:
        return Gone()
    planned = planned_for(row, policy.rotation_policies)
    if planned is None or row["status"] in ("expired", "retired", "deleted"):
        return Gone()
    if planned.at is None:
        return Later(planned, None, WINDOW_CLOSED)
    if planned.at > now:
        return Later(planned, planned.at)
    if row["account_held"] or row["key_held"]:
        reason = "account_held" if row["account_held"] else "key_held"
        return Later(planned, now + HELD_AGAIN, reason)
    if row["expires_at"] - row["created_at"] < policy.rotation_min_life:
        return Later(planned, None, "too_short_lived")
    window = chosen(policy.rotation_policies, planned.policy).window
    if window is not None and not window.contains(now):
        return Later(planned, window.following(now), "outside_window")
    return Start(planned)


def _forget(tx: Tx, ids: Sequence[UUID]) -> int:
    if not ids:
        return 0
    return tx.count("DELETE FROM keyturn.rotation_schedule WHERE key_id = ANY(:ids)", ids=ids)


def _put_off(tx: Tx, later: dict[UUID, Later]) -> int:
    if not later:
        return 0
    return tx.count(
        """
        UPDATE keyturn.rotation_schedule s
        SET policy = w.policy, rotate_at = coalesce(w.rotate_at, s.rotate_at), next_at = w.next_at,
            reason = w.reason
        FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[]), CAST(:planned AS timestamptz[]),
            CAST(:times AS timestamptz[]), CAST(:reasons AS text[]))
            AS w (key_id, policy, rotate_at, next_at, reason)
        WHERE s.key_id = w.key_id AND s.rotation_id IS NULL
        """,
        ids=list(later),
        names=[one.planned.policy for one in later.values()],
        planned=[one.planned.at for one in later.values()],
        times=[one.at for one in later.values()],
        reasons=[one.reason for one in later.values()],
    )
