"""Carries out operations: wave by wave, one key a transaction, at one pace for all workers.

Any number of workers may do so at once. A turn claims one key and commits; then the key's rotation
is issued in a transaction of its own, which takes the pace's one row last before it writes: two
issues are apart by at least the pace, whoever makes them, because each compares its own instant.
A worker that dies leaves nothing but a lease.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from . import audit, rotations
from .base import Database, Tx, is_server_trouble
from .errors import Refused
from .key_text import Peppers
from .operation_letters import tell_owners
from .operation_selection import LEFT_OUT, WITH_ROLES
from .policy import Policy
from .sealing import Sealer
from .statements import Row

ACTOR = "keyturn"

TRIES = 3
"""Times that a key's issuing may fail, or a worker die of it, before the key has failed."""

RETRY_FIRST = timedelta(seconds=5)
"""The pause after a key's first try; the next one is twice as long."""

BUSY = timedelta(seconds=2)
"""When a key is tried again whose account somebody else was changing."""

NOTHING = timedelta(0)

HAND_OVER_FAILED = "r.blocked_reason = 'hand_over_failed'"
NOT_HANDED_OVER = f"""
    r.sink <> 'claim' AND r.state = 'issued' AND r.sealed IS NOT NULL AND r.claimed_at IS NULL
    AND NOT coalesce({HAND_OVER_FAILED}, false)
"""
"""A rotation `r` whose sink has not taken the new key yet, and may still."""

_TOO_EARLY = "pace.next_at > :now AND pace.next_at < :now + :gap + interval '1 minute'"
"""The next moment is to come. One that lies further ahead is of a clock that was set back since."""


@dataclass(frozen=True)
class Claimed:
    """A key that is this worker's to issue until its lease ends."""

    operation_id: UUID
    place: int
    key_id: UUID
    account_id: UUID
    fence: int
    attempts: int


@dataclass(frozen=True)
class Turn:
    """What to do next: issue what is `claimed`, or come again after `pause`.

    Neither: nothing is to be done now, unless a wave was `moved` on just then.
    """

    claimed: Claimed | None = None
    pause: timedelta = NOTHING
    moved: bool = False


def turn(tx: Tx, policy: Policy) -> Turn:
    """Claim the next key of the operation that has waited longest, or move a wave on.

    A wave is done when each of its keys was issued, skipped or has failed, and each sink has taken
    what is its own or failed to; keys that their holders claim need not be claimed yet. Then owners
    are told, and the next one begins. Operations that somebody else looks at just now are passed
    over.
    """
    pause = _until_next(tx, policy)
    if pause:
        return Turn(pause=pause)
    running = tx.rows(
        "SELECT id, wave, waves FROM keyturn.operations WHERE state = 'running'"
        " ORDER BY turn_at, id FOR NO KEY UPDATE SKIP LOCKED"
    )
    for operation in running:
        found = _turn_of(tx, operation, policy)
        if found.claimed or found.moved:
            return found
    return Turn()


def _turn_of(tx: Tx, operation: Row, policy: Policy) -> Turn:
    wave = _look(tx, operation)
    if wave["failing"] > policy.wave_stop_share * wave["keys"]:
        return _stop(tx, operation, wave, policy)
    if wave["waiting"]:
        return _claim(tx, operation, policy) or _wait(tx, operation, "retries")
    if wave["handing_over"]:
        return _wait(tx, operation, "hand_overs")
    return _next_wave(tx, operation, policy)


def _look(tx: Tx, operation: Row) -> Row:
    """The present wave, counted. A key that was tried often enough without an end has failed."""
    tx.execute(
        """
        UPDATE keyturn.operation_keys
        SET state = 'failed', reason = coalesce(reason, 'no_answer'), finished_at = :now,
            fence = fence + 1
        WHERE operation_id = :id AND wave = :wave AND state = 'waiting'
          AND attempts >= :tries AND next_attempt_at <= :now
        """,
        id=operation["id"],
        wave=operation["wave"],
        tries=TRIES,
    )
    [found] = tx.rows(
        f"""
        SELECT count(*) AS keys, count(*) FILTER (WHERE p.state = 'waiting') AS waiting,
               count(*) FILTER (WHERE {NOT_HANDED_OVER}) AS handing_over,
               count(*) FILTER (WHERE NOT p.accepted
                   AND (p.state = 'failed' OR {HAND_OVER_FAILED})) AS failing,
               string_agg(DISTINCT coalesce(p.reason, r.blocked_reason), ', ') FILTER (
                   WHERE p.state = 'failed' OR {HAND_OVER_FAILED}) AS why
        FROM keyturn.operation_keys p LEFT JOIN keyturn.rotations r ON r.id = p.rotation_id
        WHERE p.operation_id = :id AND p.wave = :wave
        """,
        id=operation["id"],
        wave=operation["wave"],
    )
    return found


def _stop(tx: Tx, operation: Row, wave: Row, policy: Policy) -> Turn:
    """Too many fail: a person looks before anything more is touched."""
    why = f"{wave['failing']} of {wave['keys']} keys of wave {operation['wave']} failed"
    reason = f"{why}: {wave['why']}"
    tx.execute(
        "UPDATE keyturn.operations SET state = 'stopped', stop_reason = :reason, waits_for = NULL,"
        " turn_at = :now WHERE id = :id",
        id=operation["id"],
        reason=reason,
    )
    tell_owners(tx, operation["id"], operation["wave"], policy)
    audit.record(tx, ACTOR, "operation.stopped", why=f"{reason} (operation {operation['id']})")
    tx.alarm("operation_stopped", operation=str(operation["id"]), why=reason)
    return Turn(moved=True)


def _next_wave(tx: Tx, operation: Row, policy: Policy) -> Turn:
    tell_owners(tx, operation["id"], operation["wave"], policy)
    if operation["wave"] < operation["waves"]:
        tx.execute(
            "UPDATE keyturn.operations SET wave = wave + 1, turn_at = :now, waits_for = NULL"
            " WHERE id = :id",
            id=operation["id"],
        )
    else:
        tx.execute(
            "UPDATE keyturn.operations SET state = 'completed', ended_at = :now, turn_at = :now,"
            " waits_for = NULL WHERE id = :id",
            id=operation["id"],
        )
        why = f"{operation['waves']} waves (operation {operation['id']})"
        audit.record(tx, ACTOR, "operation.completed", why=why)
    return Turn(moved=True)


def _wait(tx: Tx, operation: Row, waits_for: str) -> Turn:
    """Say what the wave waits for; the time at which it last moved stays."""
    tx.execute(
        "UPDATE keyturn.operations SET waits_for = :waits_for"
        " WHERE id = :id AND waits_for IS DISTINCT FROM :waits_for",
        id=operation["id"],
        waits_for=waits_for,
    )
    return Turn()


def _claim(tx: Tx, operation: Row, policy: Policy) -> Turn | None:
    row = tx.row(
        """
        UPDATE keyturn.operation_keys p
        SET attempts = attempts + 1, fence = fence + 1, next_attempt_at = :now + :lease
        FROM (
            SELECT place FROM keyturn.operation_keys
            WHERE operation_id = :id AND wave = :wave AND state = 'waiting'
              AND next_attempt_at <= :now
            ORDER BY place LIMIT 1
        ) next
        WHERE p.operation_id = :id AND p.place = next.place
        RETURNING p.operation_id, p.place, p.key_id, p.account_id, p.fence, p.attempts
        """,
        id=operation["id"],
        wave=operation["wave"],
        lease=policy.lease,
    )
    if row is None:
        return None
    tx.execute(
        "UPDATE keyturn.operations SET turn_at = :now, waits_for = NULL WHERE id = :id",
        id=operation["id"],
    )
    return Turn(claimed=Claimed(**row))


def issue(
    database: Database, claimed: Claimed, *, policy: Policy, sealer: Sealer, peppers: Peppers
) -> bool:
    """Rotate a claimed key; False where its time has not come, or another worker was quicker.

    A key that no longer fits is skipped with the reason. What fails is tried again after a pause,
    TRIES times. What the server failed at is nobody's fault: the try is given back.
    """
    try:
        return database.run(lambda tx: _issue(tx, claimed, policy, sealer, peppers))
    except Refused as refused:
        code = refused.code
        return database.run(lambda tx: _finish(tx, claimed, "skipped", code))
    except Exception as error:
        if is_server_trouble(error):
            with suppress(Exception):  # the lease ends by itself
                database.run(lambda tx: _give_back(tx, claimed, NOTHING))
            raise
        reason = type(error).__name__
        return database.run(lambda tx: _put_off(tx, claimed, reason))


def _issue(tx: Tx, claimed: Claimed, policy: Policy, sealer: Sealer, peppers: Peppers) -> bool:
    if not _mine(tx, claimed):
        return False
    free = tx.row(
        "SELECT FROM keyturn.accounts WHERE id = :id FOR NO KEY UPDATE SKIP LOCKED",
        id=claimed.account_id,
    )
    if free is None:
        return _give_back(tx, claimed, BUSY)
    unfit = _unfit(tx, claimed, policy)
    if unfit is not None:
        return _finish(tx, claimed, "skipped", unfit)
    if not _in_pace(tx, policy):
        _give_back(tx, claimed, NOTHING)
        return False
    rotation = rotations.request(
        tx,
        claimed.key_id,
        idempotency_key=f"operation:{claimed.operation_id}:{claimed.key_id}",
        actor=_applied_by(tx, claimed),
        policy=policy,
        sealer=sealer,
        peppers=peppers,
        reason="operation",
        operation_id=claimed.operation_id,
        tell_owner=False,
    )
    return _finish(tx, claimed, "issued", None, rotation.id)


def _mine(tx: Tx, claimed: Claimed) -> bool:
    """Whether the operation still runs, and the key is still this worker's; both stay so."""
    state = tx.scalar(
        "SELECT state FROM keyturn.operations WHERE id = :id FOR SHARE", id=claimed.operation_id
    )
    if state != "running":
        _give_back(tx, claimed, NOTHING)
        return False
    return (
        tx.row(
            "SELECT FROM keyturn.operation_keys WHERE operation_id = :id AND place = :place"
            " AND fence = :fence AND state = 'waiting' FOR UPDATE",
            id=claimed.operation_id,
            place=claimed.place,
            fence=claimed.fence,
        )
        is not None
    )


def _unfit(tx: Tx, claimed: Claimed, policy: Policy) -> str | None:
    reason: str | None = tx.scalar(
        f"SELECT {LEFT_OUT} FROM {WITH_ROLES} WHERE k.id = :key",
        key=claimed.key_id,
        min_life=policy.rotation_min_life,
    )
    return reason


def _in_pace(tx: Tx, policy: Policy) -> bool:
    """Take the pace's next moment; its row is this transaction's until it ends."""
    return bool(
        tx.count(
            f"""
            INSERT INTO keyturn.operation_pace AS pace (id, next_at) VALUES (1, :now + :gap)
            ON CONFLICT (id) DO UPDATE SET next_at = :now + :gap WHERE NOT ({_TOO_EARLY})
            """,
            gap=_gap(policy),
        )
    )


def _until_next(tx: Tx, policy: Policy) -> timedelta:
    pause: timedelta | None = tx.scalar(
        f"SELECT pace.next_at - :now FROM keyturn.operation_pace pace WHERE {_TOO_EARLY}",
        gap=_gap(policy),
    )
    return pause or NOTHING


def _gap(policy: Policy) -> timedelta:
    return timedelta(seconds=1 / policy.bulk_rate)


def _applied_by(tx: Tx, claimed: Claimed) -> str:
    actor: str = tx.scalar(
        "SELECT applied_by FROM keyturn.operations WHERE id = :id", id=claimed.operation_id
    )
    return actor


def _finish(
    tx: Tx, claimed: Claimed, state: str, reason: str | None, rotation_id: UUID | None = None
) -> bool:
    return _write(
        tx,
        claimed,
        "state = :state, reason = :reason, rotation_id = :rotation, finished_at = :now",
        state=state,
        reason=reason,
        rotation=rotation_id,
    )


def _put_off(tx: Tx, claimed: Claimed, reason: str) -> bool:
    """Note why it failed; after the last try there is no pause, and the next look ends it."""
    last = claimed.attempts >= TRIES
    pause = NOTHING if last else RETRY_FIRST * 2 ** (claimed.attempts - 1)
    change = "reason = :reason, next_attempt_at = :now + :pause"
    return _write(tx, claimed, change, reason=reason, pause=pause)


def _give_back(tx: Tx, claimed: Claimed, pause: timedelta) -> bool:
    return _write(
        tx, claimed, "attempts = attempts - 1, next_attempt_at = :now + :pause", pause=pause
    )


def _write(tx: Tx, claimed: Claimed, change: str, /, **params: object) -> bool:
    """Change a claimed key; a claim that was overtaken changes nothing."""
    return bool(
        tx.count(
            f"UPDATE keyturn.operation_keys SET {change} WHERE operation_id = :id"
            " AND place = :place AND fence = :fence AND state = 'waiting'",
            id=claimed.operation_id,
            place=claimed.place,
            fence=claimed.fence,
            **params,
        )
    )
