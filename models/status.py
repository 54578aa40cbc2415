"""How things stand: what waits, for how long, what wants a person, and when each job last ran."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import inbox, schedule_runs, source_silence
from .base import Tx
from .schedule_runs import ScheduleRun
from .tables import ROTATION_LIVE, ROTATION_OPEN, one_of


@dataclass(frozen=True)
class Status:
    """Work that waits, and when each flow last ran.

    `unreported_rotations` are under way for a day or more without any use of the family's keys on
    record: nobody can say whether their old keys are still needed.

    `operations` are plans of bulk rotation by their states: those that have not ended, each of the
    states of a plan that was applied even where there is none.

    `waiting_seconds` is how long the oldest has waited that could be dealt with now: an `event`, a
    `message` to be sent, a `key` past its end. What does not wait is not in it.

    `silent_sources` are those that have been silent for longer than is normal, and for how many
    seconds.
    """

    events: Mapping[str, int]
    outbox: Mapping[str, int]
    unsettled_accounts: int
    keys_past_end: int
    rotations: Mapping[str, int]
    blocked_rotations: int
    unreported_rotations: int
    operations: Mapping[str, int]
    waiting_seconds: Mapping[str, float]
    silent_sources: Mapping[str, float]
    runs: list[ScheduleRun]


_APPLIED = ("running", "paused", "stopped")

# After a day, for whoever fetches a key rarely uses it in the same minute.
_UNREPORTED = f"""
    SELECT count(*) FROM keyturn.rotations r
    WHERE r.{one_of("state", ROTATION_OPEN)} AND r.issued_at <= :now - interval '1 day'
      AND NOT EXISTS (
        SELECT FROM keyturn.api_keys k JOIN keyturn.key_uses u ON u.key_id = k.id
        WHERE k.family_id = r.family_id AND u.last_used_at >= r.issued_at)
"""


_UNSETTLED = """
    SELECT (SELECT count(*) FROM keyturn.accounts WHERE unsettled) + (
        SELECT count(*) FROM keyturn.tenants t JOIN keyturn.accounts a ON a.tenant_id = t.id
        WHERE t.unsettled AND NOT a.unsettled AND (t.settled_to IS NULL OR a.id > t.settled_to))
"""


def read(tx: Tx) -> Status:
    """How things stand at this transaction's instant. Cheap: it reads only what waits."""
    outbox = tx.rows(
        "SELECT channel, count(*) AS n FROM keyturn.outbox WHERE state = 'waiting' GROUP BY channel"
    )
    rotations = tx.rows(
        "SELECT state, count(*) AS n, count(blocked_reason) AS blocked FROM keyturn.rotations"
        " WHERE state = ANY(:live) GROUP BY state",
        live=list(ROTATION_LIVE),
    )
    return Status(
        events=inbox.counts(tx),
        outbox={row["channel"]: row["n"] for row in outbox},
        unsettled_accounts=tx.scalar(_UNSETTLED),
        keys_past_end=tx.scalar(
            "SELECT count(*) FROM keyturn.api_keys"
            " WHERE expires_at <= :now AND status NOT IN ('expired', 'deleted')"
        ),
        rotations={row["state"]: row["n"] for row in rotations},
        blocked_rotations=sum(row["blocked"] for row in rotations),
        unreported_rotations=tx.scalar(_UNREPORTED),
        operations=dict.fromkeys(_APPLIED, 0) | _operations(tx),
        waiting_seconds=_waiting(tx),
        silent_sources=source_silence.silent(tx),
        runs=schedule_runs.listed(tx),
    )


def _operations(tx: Tx) -> dict[str, int]:
    rows = tx.rows(
        "SELECT state, count(*) AS n FROM keyturn.operations"
        " WHERE state = ANY(:applied) OR (state = 'planned' AND plan_until > :now) GROUP BY state",
        applied=list(_APPLIED),
    )
    return {row["state"]: row["n"] for row in rows}


def _waiting(tx: Tx) -> dict[str, float]:
    rows = tx.rows(
        """
        SELECT what, extract(epoch FROM :now - since)::float8 AS seconds FROM (
            SELECT 'event' AS what, min(received_at) AS since FROM keyturn.inbox
            WHERE state = 'received' AND received_at <= :now
            UNION ALL
            SELECT 'message', min(due_at) FROM keyturn.outbox
            WHERE state = 'waiting' AND due_at <= :now
            UNION ALL
            SELECT 'key', min(expires_at) FROM keyturn.api_keys
            WHERE expires_at <= :now AND status NOT IN ('expired', 'deleted')
        ) oldest WHERE since IS NOT NULL
        """
    )
    return {row["what"]: row["seconds"] for row in rows}
