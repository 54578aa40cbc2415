"""What events do to holds: folded to one outcome per (target, source, kind), and written.

A target is an account, or a tenant.
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from . import bursts, holds
from .accounts import TENANT, Link
from .base import Tx
from .event_order import KIND, Mark, judge
from .event_rows import Claimed
from .identity import new_id
from .policy import Policy

Target = tuple[UUID, str, str]
"""Account or tenant, source and kind: what one hold is unique by."""


def apply(
    tx: Tx, found: Sequence[Claimed], links: Mapping[int, Link], policy: Policy
) -> list[dict[str, Any]]:
    """Place and lift the holds that events of locked accounts and tenants ask for; what became of
    each."""
    marks = _marks(tx, {links[one.id].account_id for one in found})
    tenants = {link.account_id for link in links.values() if link.format == TENANT}
    before = dict(marks)
    outcomes: list[dict[str, Any]] = []
    causes: dict[Target, Claimed] = {}
    for one in found:
        link = links[one.id]
        target = (link.account_id, one.source, KIND[one.event.action])
        old = marks.get(target, Mark())
        verdict = judge(one.event, old, link, policy.future_tolerance)
        if verdict.mark is not old:
            marks[target] = verdict.mark
            causes[target] = one
        outcomes.append(
            {
                "id": one.id,
                "state": verdict.state,
                "reason": verdict.reason,
                "account_id": str(link.account_id) if link.format != TENANT else None,
            }
        )
    of_tenants = {target: one for target, one in causes.items() if target[0] in tenants}
    of_accounts = {target: one for target, one in causes.items() if target[0] not in tenants}
    if of_tenants:
        _write_holds(tx, _HOLDS.format(column="tenant_id"), of_tenants, before, marks)
        holds.refresh_tenants(tx, sorted({target[0] for target in of_tenants}))
    if of_accounts:
        _write_holds(tx, _HOLDS.format(column="account_id"), of_accounts, before, marks)
        holds.refresh_accounts(tx, sorted({target[0] for target in of_accounts}))
    bursts.watch(tx, {target[1] for target in causes if marks[target].standing}, policy)
    return outcomes


def _marks(tx: Tx, ids: set[UUID]) -> dict[Target, Mark]:
    rows = tx.rows(
        """
        SELECT coalesce(account_id, tenant_id) AS target, source, kind, mark_at, mark_sequence,
               mark_event, placed_at IS NOT NULL AND lifted_at IS NULL AS standing
        FROM keyturn.holds WHERE account_id = ANY(:ids) OR tenant_id = ANY(:ids)
        """,
        ids=list(ids),
    )
    return {
        (row["target"], row["source"], row["kind"]): Mark(
            row["standing"], row["mark_at"], row["mark_sequence"], row["mark_event"]
        )
        for row in rows
    }


def _write_holds(
    tx: Tx,
    sql: str,
    causes: Mapping[Target, Claimed],
    before: Mapping[Target, Mark],
    after: Mapping[Target, Mark],
) -> None:
    rows = [
        {
            "id": str(new_id()),
            "target": str(target[0]),
            "source": target[1],
            "kind": target[2],
            "standing": after[target].standing,
            "changed": after[target].standing != before.get(target, Mark()).standing,
            "mark_at": _text(after[target].at),
            "mark_sequence": after[target].sequence,
            "mark_event": after[target].event,
            "why": one.cause,
        }
        for target, one in causes.items()
    ]
    tx.execute(sql, rows=json.dumps(rows))


_HOLDS = """
WITH r AS MATERIALIZED (
    SELECT * FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r (
        id uuid, target uuid, source text, kind text, standing boolean, changed boolean,
        mark_at timestamptz, mark_sequence bigint, mark_event bigint, why text)
), audited AS (
    INSERT INTO keyturn.audit (at, actor, action, account_id, why)
    SELECT :now, 'source:' || source,
           CASE WHEN standing THEN 'hold.placed' ELSE 'hold.lifted' END, target,
           source || '/' || kind || ': ' || why
    FROM r WHERE changed
)
INSERT INTO keyturn.holds AS h
    (id, {column}, source, kind, placed_at, reason, mark_at, mark_sequence, mark_event)
SELECT id, target, source, kind, CASE WHEN standing THEN :now END, why,
       mark_at, mark_sequence, mark_event
FROM r ORDER BY target, source, kind
ON CONFLICT ({column}, source, kind) WHERE {column} IS NOT NULL DO UPDATE SET
    placed_at = CASE
        WHEN excluded.placed_at IS NULL THEN h.placed_at
        WHEN h.placed_at IS NULL OR h.lifted_at IS NOT NULL THEN excluded.placed_at
        ELSE h.placed_at END,
    lifted_at = CASE
        WHEN excluded.placed_at IS NOT NULL THEN NULL
        WHEN h.placed_at IS NOT NULL THEN coalesce(h.lifted_at, :now) END,
    confirmed_at = CASE WHEN h.lifted_at IS NULL THEN h.confirmed_at END,
    reason = excluded.reason,
    mark_at = excluded.mark_at,
    mark_sequence = excluded.mark_sequence,
    mark_event = excluded.mark_event
"""


def _text(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
