"""What a database says, without what may differ from run to run: ids, times, and who tried twice.

Not in it, since a repeated attempt may change it: attempts, fences and leases; how key ids are
spread over pages of outgoing events; the entry `rotation.step_failed`, which says that a step was
tried once more; plans that nobody applied; the length of a pause, which goes on until a run has
noticed its end.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg.rows import dict_row

Row = Mapping[str, Any]
Dump = Mapping[str, Sequence[str]]

_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VARYING: Final = re.compile(r"(?<=\(event )\d+|(?<=held for ).*?(?= \()")

_NAMES: Final = """
    SELECT id, email AS name FROM keyturn.accounts
    UNION ALL
    SELECT id, concat('tenant ', name) FROM keyturn.tenants
    UNION ALL
    SELECT k.id, concat(a.email, '/', k.name, '/', row_number() OVER (
        PARTITION BY a.id, k.name ORDER BY k.family_id <> k.id, k.created_at, k.id))
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    UNION ALL
    SELECT r.id, concat('rotation of ', r.old_key_id, ' ', row_number() OVER (
        PARTITION BY r.old_key_id ORDER BY r.issued_at, r.id))
    FROM keyturn.rotations r
"""
_STANDS: Final = "placed_at IS NOT NULL AND lifted_at IS NULL"

_SECTIONS: Final = {
    "tenants": "SELECT name, held, unsettled, settled_to FROM keyturn.tenants",
    "names of tenants": """
        SELECT tenant_id, issuer, value, linked_by FROM keyturn.tenant_identities
    """,
    "accounts": "SELECT email, role, held, unsettled, tenant_id FROM keyturn.accounts",
    "identities": """
        SELECT account_id, format, issuer, value, unlinked_at IS NULL AS linked, linked_by,
               unlinked_by, replaced
        FROM keyturn.account_identities
    """,
    "holds": f"""
        SELECT coalesce(account_id, key_id, tenant_id) AS target, source, kind, {_STANDS} AS stands,
               lifted_at IS NOT NULL AS lifted, reason, mark_sequence, confirm,
               mark_event IS NOT NULL AS marked
        FROM keyturn.holds
    """,
    "keys": """
        SELECT id, role, status, version, held, deleted_at IS NOT NULL AS deleted, family_id,
               created_by, hint = '' AS purged
        FROM keyturn.api_keys
    """,
    "uses": """
        SELECT key_id, uses, first_used_at IS NOT NULL AS used, host(last_ip) AS ip,
               refused_uses, refused_told_at IS NOT NULL AS told
        FROM keyturn.key_uses
    """,
    "compromises": """
        SELECT key_id, actor, issue, state, outcome, rotation_id FROM keyturn.compromises
    """,
    "rotations": """
        SELECT id, old_key_id, new_key_id, state, sealed IS NOT NULL AS sealed, sealed_kek,
               requested_by, idempotency_key, claimed_at IS NOT NULL AS claimed, sink, claimed_by,
               confirmed_by,
               alarmed_at IS NOT NULL AS alarmed, paused_at IS NOT NULL AS paused,
               resumed_at IS NOT NULL AS resumed, retire_at IS NOT NULL AS planned,
               undo_until IS NOT NULL AS undo, ended_at IS NOT NULL AS ended, cancel_reason,
               blocked_reason, reason, reissued_as, undone_at IS NOT NULL AS undone,
               warned_for IS NOT NULL AS warned, retired_at IS NOT NULL AS retired
        FROM keyturn.rotations
    """,
    "hand overs": """
        SELECT rotation_id, sink, state, error, receipt, delivered_at IS NOT NULL AS delivered
        FROM keyturn.hand_overs
    """,
    "schedule": """
        SELECT key_id, policy, reason, rotation_id, next_at IS NULL AS settled
        FROM keyturn.rotation_schedule
    """,
    "operations": """
        SELECT state, keys, waves, wave, planned_by, applied_by, waits_for, stop_reason,
               ended_at IS NOT NULL AS ended
        FROM keyturn.operations WHERE state <> 'planned'
    """,
    "keys of operations": """
        SELECT p.place, p.wave, p.key_id, p.state, p.reason, p.rotation_id, p.told
        FROM keyturn.operation_keys p
        JOIN keyturn.operations o ON o.id = p.operation_id AND o.state <> 'planned'
    """,
    "inbox": """
        SELECT source, raw_type, event_id, subject_value::text AS subject, state, reason,
               conflict, account_id, finished_at IS NOT NULL AS finished
        FROM keyturn.inbox
    """,
    "silences": "SELECT source, told_at IS NOT NULL AS told FROM keyturn.source_silences",
    "inbox_keys": "SELECT source, dedup_key FROM keyturn.inbox_keys",
    "notices": """
        SELECT n.key_id, n.threshold_seconds, n.state, n.reason, o.kind, o.state AS message
        FROM keyturn.notices n LEFT JOIN keyturn.outbox o ON o.id = n.outbox_id
    """,
    "outgoing events": """
        SELECT o.kind, o.state, o.error, one AS key
        FROM keyturn.outbox o, jsonb_array_elements_text(o.payload->'key_ids') one
        WHERE channel = 'events'
    """,
    "outgoing mail": """
        SELECT kind, priority, state, error, account_id, payload->'key'->>'id' AS key,
               payload->>'code' AS code, payload->>'total' AS total,
               (SELECT string_agg(one->>'code', ' ' ORDER BY one->'key'->>'name')
                FROM jsonb_array_elements(payload->'rotations') one) AS codes,
               (SELECT string_agg(one->>'id', ' ' ORDER BY one->>'name')
                FROM jsonb_array_elements(payload->'keys') one) AS keys,
               (SELECT string_agg(one->>'rotation_id', ' ' ORDER BY one->'key'->>'name')
                FROM jsonb_array_elements(payload->'rotations') one) AS rotations
        FROM keyturn.outbox WHERE channel = 'mail'
    """,
    "audit of keys": """
        SELECT key_id, version, actor, action, before, after, why FROM keyturn.audit
        WHERE key_id IS NOT NULL AND action <> 'rotation.step_failed'
    """,
    "audit of accounts": """
        SELECT account_id, row_number() OVER (PARTITION BY account_id ORDER BY id) AS entry,
               actor, action, before, after, why
        FROM keyturn.audit WHERE key_id IS NULL
    """,
    "audit seals": "SELECT sum(entries) AS sealed, max(last_id) AS last FROM keyturn.audit_seals",
    "runs": "SELECT job, lease_until IS NULL AS free, error FROM keyturn.schedule_runs",
}


def dump(server: psycopg.Connection, received: Iterable[Row]) -> Dump:
    """The rows of a database as sorted lines, by section.

    `received` is what the far sides were sent, each message once however often it came.
    """
    with server.cursor(row_factory=dict_row) as cursor:
        named = _namer(cursor.execute(_NAMES.encode()).fetchall())
        sections = {
            section: cursor.execute(sql.encode()).fetchall() for section, sql in _SECTIONS.items()
        }
    return {
        section: sorted(_line(row, named) for row in rows)
        for section, rows in (*sections.items(), ("received", received))
    }


def difference(expected: Dump, found: Dump) -> list[str]:
    """The lines that only one of two dumps has."""
    lines: dict[str, list[str]] = defaultdict(list)
    for section in expected:
        left, right = list(expected[section]), list(found[section])
        for line in expected[section]:
            if line in right:
                right.remove(line)
                left.remove(line)
        lines[section] = [f"- {line}" for line in left] + [f"+ {line}" for line in right]
    return [f"{section}: {line}" for section, found in lines.items() for line in found]


def _namer(rows: Sequence[Row]) -> Callable[[str], str]:
    names = {str(row["id"]): str(row["name"]) for row in rows}

    def named(text: str) -> str:
        for _ in range(2):  # a rotation's name has its key's in it
            text = _ID.sub(lambda found: names.get(found[0], "?"), text)
        return _VARYING.sub("...", text)

    return named


def _line(row: Row, named: Callable[[str], str]) -> str:
    return " ".join(f"{name}={named(str(value))}" for name, value in row.items())
