"""Bulk operations: many keys are rotated by one plan (issue 4, "Bulk").

A plan is stored with its exact keys, each at its place; applied, it becomes an operation that is
carried out wave by wave (`operation_steps`). Whoever changes an operation holds its row. Keys that
no longer fit at their turn are skipped with the reason; none of them stops the others.
"""

import json
from datetime import timedelta
from uuid import UUID

from . import audit, roles
from .base import Tx
from .errors import Refused
from .identity import new_id
from .operation_letters import tell_owners
from .operation_rows import Operation, Unrotated, exists, find, listed, unrotated
from .operation_selection import CHOSEN, Selection
from .policy import Policy
from .rotation_policy import chosen

__all__ = [
    "Operation",
    "Selection",
    "Unrotated",
    "apply",
    "cancel",
    "check",
    "exists",
    "find",
    "forget",
    "listed",
    "pause",
    "plan",
    "resume",
    "unrotated",
]

CHOICES = "--account, --role, --older-than, --expiring, or --all for every key"

FORGOTTEN_AFTER = timedelta(days=1)
"""How long a plan that nobody applied can still be looked at."""

PLAN_TIMEOUT = "5min"
"""The longest that planning, or planning anew to compare, may run: a million keys take 30 s."""


_PLAN = f"""
    INSERT INTO keyturn.operation_keys
        (operation_id, place, wave, key_id, account_id, state, reason, next_attempt_at)
    SELECT :id, place, CASE WHEN left_out IS NULL THEN (place - 1) / :wave_keys + 1 END,
           id, account_id, CASE WHEN left_out IS NULL THEN 'waiting' ELSE 'left_out' END,
           left_out, :now
    FROM (
        SELECT turns.*, row_number() OVER (
            ORDER BY left_out IS NOT NULL, turn, account_id, id) AS place
        FROM (
            SELECT c.*, row_number() OVER (
                PARTITION BY account_id, left_out IS NULL ORDER BY expires_at, id) AS turn
            FROM ({CHOSEN}) c
        ) turns
    ) placed
"""
"""Accounts take turns: everybody's first key comes before anybody's second."""

_FACTS = """
    SELECT count(*) AS keys, coalesce(max(p.wave), 0) AS waves,
           count(*) FILTER (WHERE u.last_used_at > :now - interval '24 hours') AS used_24h,
           count(*) FILTER (WHERE u.last_used_at > :now - interval '7 days') AS used_7d,
           count(DISTINCT p.account_id) AS owners,
           count(DISTINCT (p.account_id, p.wave)) AS messages
    FROM keyturn.operation_keys p LEFT JOIN keyturn.key_uses u USING (key_id)
    WHERE p.operation_id = :id AND p.state = 'waiting'
"""

_POLICIES = """
    SELECT coalesce(k.rotation_policy, a.rotation_policy, r.rotation_policy) AS name,
           count(*) AS n
    FROM keyturn.operation_keys p
    JOIN keyturn.api_keys k ON k.id = p.key_id
    JOIN keyturn.accounts a ON a.id = k.account_id
    JOIN keyturn.roles r ON r.name = k.role
    WHERE p.operation_id = :id AND p.state = 'waiting' GROUP BY 1
"""


def plan(tx: Tx, selection: Selection, *, actor: str, policy: Policy) -> Operation:
    """Store a plan with its exact keys; nothing is rotated before it is applied.

    Refused as `nothing_chosen` and `role_unknown`.
    """
    if not selection.given:
        raise Refused("nothing_chosen", f"no keys are chosen: give {CHOICES}")
    if selection.role is not None:
        _check_role(tx, selection.role)
    operation_id = new_id()
    tx.execute(f"SET LOCAL statement_timeout = '{PLAN_TIMEOUT}'")
    tx.execute(
        """
        INSERT INTO keyturn.operations
            (id, state, selection, facts, keys, waves, planned_by, planned_at, plan_until)
        VALUES (:id, 'planned', CAST(:selection AS jsonb), '{}', 0, 0, :actor, :now, :now + :life)
        """,
        id=operation_id,
        selection=json.dumps(selection.document()),
        actor=actor,
        life=policy.plan_life,
    )
    tx.execute(_PLAN, id=operation_id, wave_keys=policy.wave_keys, **selection.parameters(policy))
    _note_facts(tx, operation_id, policy)
    return find(tx, str(operation_id))


def check(tx: Tx, name: str, policy: Policy) -> Operation:
    """The plan as it stands, if it can be applied, or was.

    Refused as `plan_unknown`, `plan_expired`, `plan_cancelled`, `plan_empty`, and `plan_grew`
    where its selection has by now more keys that the plan does not have than the policy allows.
    """
    found = find(tx, name)
    again = "plan again: `keyturn rotations plan`"
    if found.state == "expired":
        raise Refused("plan_expired", f"the plan ended at {found.plan_until:%H:%M:%S} UTC; {again}")
    if found.state == "cancelled":
        raise Refused("plan_cancelled", f"the plan was cancelled; {again}")
    if found.state == "planned":
        if not found.keys:
            raise Refused("plan_empty", _empty(found))
        grown = _grown(tx, found, policy)
        if grown > policy.plan_growth * found.keys:
            raise Refused(
                "plan_grew",
                f"since the plan was made, {grown} keys were added to its {found.keys}"
                f" ({grown / found.keys:.1%}; at most {policy.plan_growth:.1%} may be): {again}",
            )
    return found


def apply(tx: Tx, name: str, *, actor: str, policy: Policy) -> Operation:
    """Let a plan be carried out. Applied before, it is left as it is. Refused as `check` is."""
    _lock(tx, name)
    found = check(tx, name, policy)
    if found.state != "planned":
        return found
    tx.execute(
        """
        UPDATE keyturn.operations SET state = 'running', applied_by = :actor, applied_at = :now,
            turn_at = :now WHERE id = :id
        """,
        id=found.id,
        actor=actor,
    )
    _note(tx, found.id, "applied", actor, f"{found.keys} keys, {found.waves} waves")
    tx.ring("operations.advance")
    return find(tx, name)


def pause(tx: Tx, name: str, *, actor: str, policy: Policy) -> Operation:
    """Start no more keys until `resume`; owners are told of those that were started.

    Paused before, it is left as it is. Refused as `plan_unknown` and `plan_not_running`.
    """
    _lock(tx, name)
    found = find(tx, name)
    if found.state == "paused":
        return found
    if found.state != "running":
        raise _not_running(found)
    tx.execute(
        "UPDATE keyturn.operations SET state = 'paused', waits_for = NULL WHERE id = :id",
        id=found.id,
    )
    tell_owners(tx, found.id, found.wave, policy)
    _note(tx, found.id, "paused", actor, f"{found.done} of {found.keys} keys")
    return find(tx, name)


def resume(tx: Tx, name: str, *, actor: str) -> Operation:
    """Go on where it was paused, or stopped.

    What failed in its wave is seen: keys that could not be issued are tried again, and hand-overs
    that failed do not stop it once more. Running, it is left as it is. Refused as `plan_unknown`
    and `plan_not_running`.
    """
    _lock(tx, name)
    found = find(tx, name)
    if found.state == "running":
        return found
    if found.state not in ("paused", "stopped"):
        raise _not_running(found)
    tx.execute(
        """
        UPDATE keyturn.operations
        SET state = 'running', turn_at = :now, stop_reason = NULL WHERE id = :id
        """,
        id=found.id,
    )
    tx.execute(
        """
        UPDATE keyturn.operation_keys SET accepted = state = 'issued', attempts = 0,
            next_attempt_at = :now, reason = NULL, finished_at = CASE state
            WHEN 'issued' THEN finished_at END,
            state = CASE state WHEN 'failed' THEN 'waiting' ELSE state END
        WHERE operation_id = :id AND wave = :wave AND (state = 'failed' OR EXISTS (
            SELECT FROM keyturn.rotations r
            WHERE r.id = rotation_id AND r.blocked_reason = 'hand_over_failed'))
        """,
        id=found.id,
        wave=found.wave,
    )
    _note(tx, found.id, "resumed", actor, f"was {found.state}")
    tx.ring("operations.advance")
    return find(tx, name)


def cancel(tx: Tx, name: str, *, actor: str, reason: str, policy: Policy) -> Operation:
    """End it: what is not started is not started; rotations that are under way go on.

    Cancelled before, it is left as it is. Refused as `plan_unknown` and `plan_ended`.
    """
    _lock(tx, name)
    found = find(tx, name)
    if found.state == "cancelled":
        return found
    if found.ended:
        raise Refused("plan_ended", f"the plan is {found.state}: there is nothing to cancel")
    tx.execute(
        """
        UPDATE keyturn.operations
        SET state = 'cancelled', ended_at = :now, waits_for = NULL, stop_reason = :reason
        WHERE id = :id
        """,
        id=found.id,
        reason=f"operator: {reason}",
    )
    tell_owners(tx, found.id, found.wave, policy)
    _note(tx, found.id, "cancelled", actor, f"{reason} ({found.done} of {found.keys} keys)")
    return find(tx, name)


def forget(tx: Tx, policy: Policy) -> int:
    """Remove one operation that ended long ago, or plan that nobody applied; how many (0 or 1)."""
    return tx.count(
        """
        DELETE FROM keyturn.operations WHERE id = (
            SELECT id FROM keyturn.operations
            WHERE ended_at < :now - :kept OR (state = 'planned' AND plan_until < :now - :unapplied)
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
        """,
        kept=policy.settled_kept,
        unapplied=FORGOTTEN_AFTER,
    )


def _note(tx: Tx, operation_id: UUID, verb: str, actor: str, why: str) -> None:
    audit.record(tx, actor, f"operation.{verb}", why=f"{why} (operation {operation_id})")


def _lock(tx: Tx, name: str) -> None:
    if exists(tx, name):
        tx.execute("SELECT FROM keyturn.operations WHERE id = :id FOR NO KEY UPDATE", id=UUID(name))


def _not_running(found: Operation) -> Refused:
    mends = {
        "planned": "apply it first",
        "stopped": "`keyturn rotations resume` lets it go on",
    }
    mend = mends.get(found.state, "there is nothing to do")
    return Refused("plan_not_running", f"the plan is {found.state}: {mend}")


def _empty(found: Operation) -> str:
    if found.left_out:
        why = f"`keyturn rotations show {found.id}` says why each is left out"
        return f"the plan has no keys to rotate; {why}"
    return "the plan has no keys to rotate: there was none that its options choose"


def _check_role(tx: Tx, name: str) -> None:
    known = [role.name for role in roles.known(tx)]
    if name not in known:
        raise Refused(
            "role_unknown", f"there is no role {name!r}; choose one of: {', '.join(known)}"
        )


def _note_facts(tx: Tx, operation_id: UUID, policy: Policy) -> None:
    facts = dict(tx.rows(_FACTS, id=operation_id)[0])
    keys, waves = facts.pop("keys"), facts.pop("waves")
    sinks: dict[str, int] = {}
    for row in tx.rows(_POLICIES, id=operation_id):
        sink = chosen(policy.rotation_policies, row["name"]).sink
        sinks[sink] = sinks.get(sink, 0) + row["n"]
    reasons = tx.rows(
        "SELECT reason, count(*) AS n FROM keyturn.operation_keys"
        " WHERE operation_id = :id AND state = 'left_out' GROUP BY reason ORDER BY reason",
        id=operation_id,
    )
    facts |= {"hand_overs": sinks, "left_out": {row["reason"]: row["n"] for row in reasons}}
    tx.execute(
        "UPDATE keyturn.operations SET keys = :keys, waves = :waves, facts = CAST(:facts AS jsonb)"
        " WHERE id = :id",
        id=operation_id,
        keys=keys,
        waves=waves,
        facts=json.dumps(facts),
    )


def _grown(tx: Tx, found: Operation, policy: Policy) -> int:
    """How many keys the selection has by now that the plan does not take."""
    tx.execute(f"SET LOCAL statement_timeout = '{PLAN_TIMEOUT}'")
    grown: int = tx.scalar(
        f"""
        SELECT count(*) FROM ({CHOSEN}) c WHERE c.left_out IS NULL AND NOT EXISTS (
            SELECT FROM keyturn.operation_keys p
            WHERE p.operation_id = :id AND p.key_id = c.id AND p.state <> 'left_out')
        """,
        id=found.id,
        **Selection.of(found.selection).parameters(policy),
    )
    return grown
