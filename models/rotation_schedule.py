"""Which keys are due for rotation by their policies: planned once per key, started when it is time.

Of every key whose policy rotates it there is a row with the moment for that. Pages of keys are
planned in the order of their ids, which is nearly that of their creation: so a run finds the new
ones at the end, and goes through all of them once a day, or where settings or roles have changed.
A row is a plan only: whoever starts a rotation decides anew, under the account's lock.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from uuid import UUID

from .base import Step, Tx
from .policy import Policy
from .rotation_policy import DEFAULT, RotationPolicy, chosen
from .rotation_times import rotate_at
from .statements import Row

JOB = "rotations.start_due"
PAGE = 5000
"""Keys that one transaction plans."""
WHOLE_EVERY = timedelta(days=1)
OVERLAP = timedelta(minutes=5)
"""How far a run goes back behind the newest key: one may be committed, or dated, late."""

PLANNING = 0x6B6772_70  # "kgrp"
"""The advisory lock of whoever plans, and of whoever changes what plans are made from."""

NAME = "coalesce(k.rotation_policy, a.rotation_policy, o.rotation_policy)"
"""Which policy was chosen for a key `k` of an account `a` and with a role `o`."""

_FIRST, _LAST = UUID(int=0), UUID(int=2**128 - 1)


WINDOW_CLOSED = "window_closed"
"""The window of the key's policy does not open while the key lives."""


@dataclass(frozen=True)
class Planned:
    """By which policy a key rotates, and when; `at` None: its window does not open in its life."""

    policy: str
    at: datetime | None


@dataclass(frozen=True)
class Mark:
    """How far the keys are planned, by which rules, and since when: kept with the flow's run.

    Where `through` is true the page before the next one was the last.
    """

    rules: str
    after: str
    begun_at: str
    through: bool


def planned_for(key: Row, policies: Mapping[str, RotationPolicy]) -> Planned | None:
    """The plan of a key, from its `id`, `created_at`, `expires_at` and the `name` of the policy
    that was chosen for it; None where that does not rotate keys."""
    name = key["name"] if key["name"] in policies else DEFAULT
    policy = chosen(policies, name)
    if policy.rotate is None:
        return None
    at = rotate_at(key["id"], key["created_at"], key["expires_at"], policy.rotate, policy.window)
    return Planned(name, at)


def plan(tx: Tx, policy: Policy) -> Step:
    """Plan one page of keys; finished at the newest key, and at once where no policy rotates."""
    tx.execute("SELECT pg_advisory_xact_lock(:planning)", planning=PLANNING)
    rules = _rules(tx, policy)
    last = _last(tx)
    rotating = [name for name, one in policy.rotation_policies.items() if one.rotate is not None]
    if not rotating:
        return _plan_nothing(tx, rules, last)
    mark = _next(tx, rules, last)
    after = UUID(mark.after)
    border = tx.scalar(
        "SELECT id FROM keyturn.api_keys WHERE id > :after ORDER BY id OFFSET :page - 1 LIMIT 1",
        after=after,
        page=PAGE,
    )
    changed = _plan_between(tx, policy, rotating, after, border or _LAST)
    newest = border or tx.scalar("SELECT id FROM keyturn.api_keys ORDER BY id DESC LIMIT 1")
    _leave(tx, Mark(rules, str(newest or after), mark.begun_at, through=border is None))
    return Step(changed, finished=border is None)


def _rules(tx: Tx, policy: Policy) -> str:
    """What changes when settings or roles change the plans of keys."""
    by_role = tx.rows(
        "SELECT name, rotation_policy FROM keyturn.roles"
        " WHERE rotation_policy IS NOT NULL ORDER BY name"
    )
    facts = [
        *((name, str(one.rotate), str(one.window)) for name, one in _sorted(policy)),
        *((row["name"], row["rotation_policy"]) for row in by_role),
    ]
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:16]


def _sorted(policy: Policy) -> list[tuple[str, RotationPolicy]]:
    return sorted(policy.rotation_policies.items())


def _last(tx: Tx) -> Mark | None:
    stored = tx.scalar("SELECT mark FROM keyturn.schedule_runs WHERE job = :job", job=JOB)
    return Mark(**stored) if stored else None


def _leave(tx: Tx, mark: Mark) -> None:
    tx.execute(
        """
        INSERT INTO keyturn.schedule_runs (job, mark) VALUES (:job, CAST(:mark AS jsonb))
        ON CONFLICT (job) DO UPDATE SET mark = excluded.mark
        """,
        job=JOB,
        mark=json.dumps(asdict(mark)),
    )


def _next(tx: Tx, rules: str, last: Mark | None) -> Mark:
    """Where the next page begins."""
    now = tx.now()
    if last is None or last.rules != rules:
        return Mark(rules, str(_FIRST), now.isoformat(), through=False)
    if not last.through:
        return last
    if not timedelta(0) <= now - datetime.fromisoformat(last.begun_at) < WHOLE_EVERY:
        return Mark(rules, str(_FIRST), now.isoformat(), through=False)
    milliseconds = max(0, int((now - OVERLAP).timestamp() * 1000))
    recent = UUID(int=milliseconds << 80)  # no id made since then is smaller (RFC 9562, 5.7)
    return Mark(rules, str(min(recent, UUID(last.after))), last.begun_at, through=False)


def _plan_nothing(tx: Tx, rules: str, last: Mark | None) -> Step:
    if last is not None and last.rules == rules and last.through:
        return Step(0, finished=True)
    gone = tx.count(
        "DELETE FROM keyturn.rotation_schedule WHERE key_id IN ("
        " SELECT key_id FROM keyturn.rotation_schedule LIMIT :page)",
        page=PAGE,
    )
    if gone < PAGE:
        _leave(tx, Mark(rules, str(_FIRST), tx.now().isoformat(), through=True))
    return Step(gone, finished=gone < PAGE)


_PLANNABLE = f"""
    SELECT k.id, k.created_at, k.expires_at, {NAME} AS name
    FROM keyturn.api_keys k
    JOIN keyturn.accounts a ON a.id = k.account_id
    JOIN keyturn.roles o ON o.name = k.role
    WHERE k.id > :after AND k.id <= :until AND k.status NOT IN ('expired', 'retired', 'deleted')
      AND k.expires_at > :now
      AND (coalesce({NAME}, :default) = ANY(:rotating)
        OR (:others AND {NAME} <> ALL(CAST(:known AS text[]))))
"""
_PLAN = """
    WITH wanted AS MATERIALIZED (
        SELECT * FROM unnest(CAST(:ids AS uuid[]), CAST(:names AS text[]),
            CAST(:times AS timestamptz[]), CAST(:reasons AS text[]))
            AS w (key_id, policy, rotate_at, reason)
    ), gone AS (
        DELETE FROM keyturn.rotation_schedule s
        WHERE s.key_id > :after AND s.key_id <= :until
          AND NOT EXISTS (SELECT FROM wanted w WHERE w.key_id = s.key_id)
        RETURNING s.key_id
    ), planned AS (
        INSERT INTO keyturn.rotation_schedule AS s (key_id, policy, rotate_at, next_at, reason)
        SELECT key_id, policy, rotate_at,
               CASE WHEN reason IS NULL THEN greatest(rotate_at, :now) END, reason
        FROM wanted
        ON CONFLICT (key_id) DO UPDATE SET policy = excluded.policy, next_at = excluded.next_at,
            rotate_at = excluded.rotate_at, reason = excluded.reason
        WHERE s.rotation_id IS NULL
          AND (s.policy, s.rotate_at) IS DISTINCT FROM (excluded.policy, excluded.rotate_at)
        RETURNING s.key_id
    )
    SELECT (SELECT count(*) FROM gone) + (SELECT count(*) FROM planned)
"""
# A hold that destroyed an unclaimed successor is nobody's decision about the rotation.
_AGAIN = """
    UPDATE keyturn.rotation_schedule s
    SET rotation_id = NULL, started_at = NULL, tries = s.tries + 1, next_at = :now, reason = NULL
    FROM keyturn.rotations r
    WHERE s.key_id > :after AND s.key_id <= :until AND r.id = s.rotation_id
      AND r.state = 'cancelled' AND r.cancel_reason = 'account_held'
"""


def _plan_between(tx: Tx, policy: Policy, rotating: Sequence[str], after: UUID, until: UUID) -> int:
    policies = policy.rotation_policies
    page = {"after": after, "until": until}
    keys = tx.rows(
        _PLANNABLE,
        **page,
        default=DEFAULT,
        rotating=list(rotating),
        others=DEFAULT in rotating,
        known=list(policies),
    )
    plans = [(row, one) for row in keys if (one := planned_for(row, policies)) is not None]
    changed: int = tx.scalar(
        _PLAN,
        **page,
        ids=[row["id"] for row, _ in plans],
        names=[one.policy for _, one in plans],
        times=[one.at or row["expires_at"] for row, one in plans],
        reasons=[None if one.at else WINDOW_CLOSED for _, one in plans],
    )
    return changed + tx.count(_AGAIN, **page)
