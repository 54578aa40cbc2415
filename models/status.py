"""How things stand: what waits, for how long, what wants a person, and when each job last ran."""

from collections.abc import Mapping
from dataclasses import dataclass

from . import inbox, schedule_runs
from .base import Tx
from .schedule_runs import ScheduleRun
from .tables import ROTATION_LIVE


@dataclass(frozen=True)
class Status:
    """Work that waits, and when each flow last ran.

    `waiting_seconds` is how long the oldest has waited that could be dealt with now: an `event`, a
    `message` to be sent, a `key` past its end. What does not wait is not in it.
    """

    events: Mapping[str, int]
    outbox: Mapping[str, int]
    unsettled_accounts: int
    keys_past_end: int
    rotations: Mapping[str, int]
    blocked_rotations: int
    waiting_seconds: Mapping[str, float]
    runs: list[ScheduleRun]


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
        unsettled_accounts=tx.scalar("SELECT count(*) FROM keyturn.accounts WHERE unsettled"),
        keys_past_end=tx.scalar(
            "SELECT count(*) FROM keyturn.api_keys"
            " WHERE expires_at <= :now AND status NOT IN ('expired', 'deleted')"
        ),
        rotations={row["state"]: row["n"] for row in rotations},
        blocked_rotations=sum(row["blocked"] for row in rotations),
        waiting_seconds=_waiting(tx),
        runs=schedule_runs.listed(tx),
    )


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
