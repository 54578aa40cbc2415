"""The writes of a rotation from its request to its end, as one would type them."""

from typing import Final

BATCH: Final = 100
"""Rotations that one transaction ends, as in ours."""

KEYS: Final = """
    SELECT k.account_id, k.id, k.name, k.hint, k.expires_at, a.email
    FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    ORDER BY k.id LIMIT %s
"""
WRITTEN: Final = """
    SELECT 'audit: ' || action, count(*) FROM keyturn.audit WHERE actor <> 'bench' GROUP BY action
    UNION ALL SELECT 'outbox: ' || kind, count(*) FROM keyturn.outbox GROUP BY kind
    UNION ALL SELECT 'holds: ' || kind, count(*) FROM keyturn.holds GROUP BY kind
    UNION ALL SELECT 'rotations: ' || state, count(*) FROM keyturn.rotations GROUP BY state
    UNION ALL SELECT 'api_keys: ' || status, count(*) FROM keyturn.api_keys k
        WHERE EXISTS (SELECT FROM keyturn.rotations WHERE k.id IN (old_key_id, new_key_id))
        GROUP BY status
    UNION ALL SELECT 'key_uses', count(*) FROM keyturn.key_uses WHERE uses = 1
"""
EACH: Final = frozenset(
    {
        "audit: key.created",
        "audit: rotation.issued",
        "audit: rotation.claimed",
        "audit: rotation.confirmed",
        "audit: rotation.retired",
        "audit: hold.placed",
        "audit: key.rotated",
        "audit: rotation.completed",
        "audit: key.deleted",
        "outbox: key.issued",
        "outbox: rotation.issued",
        "outbox: key.rotated",
        "outbox: key.deleted",
        "outbox: rotation.completed",
        "holds: rotated",
        "rotations: completed",
        "api_keys: active",
        "api_keys: deleted",
        "key_uses",
    }
)
"""What one rotation leaves behind, a row of each. The mail about its confirmation is not among
them: it is written where a rotation stays confirmed, and with nothing to wait for none does."""


def _audit(
    action: str,
    key: str,
    why: str = "NULL",
    change: str = "NULL, NULL, NULL",
    *,
    actor: str = "keyturn",
    account: str = "%(account)s",
) -> str:
    return f"""
        INSERT INTO keyturn.audit
            (at, actor, action, account_id, key_id, version, before, after, why)
        VALUES (now(), '{actor}', '{action}', {account}, {key}, {change}, {why})
    """


def _event(number: int, kind: str, key: str, more: str = "") -> str:
    return f"""
        INSERT INTO keyturn.outbox
            (id, channel, kind, priority, account_id, payload, created_at, due_at)
        VALUES (%(message_{number})s, 'events', '{kind}', 5, %(account)s, jsonb_build_object(
            'account_id', %(account)s::text, 'key_ids', jsonb_build_array({key}::text){more}),
            now(), now())
    """


def _mail(number: int, kind: str, more: str = "") -> str:
    return f"""
        INSERT INTO keyturn.outbox
            (id, channel, kind, priority, account_id, payload, created_at, due_at)
        SELECT %(message_{number})s, 'mail', '{kind}', 5, %(account)s,
            told || jsonb_build_object('account', %(email)s::text, 'operation_id', NULL,
                'gathers', false, 'total', 1, 'rotations', jsonb_build_array(told)),
            now(), now()
        FROM (SELECT jsonb_build_object(
            'rotation_id', %(rotation)s::text,
            'key', jsonb_build_object('id', %(old)s::text, 'name', %(name)s::text,
                'hint', %(old_hint)s::text, 'expires_at', %(ends)s::timestamptz),
            'successor', jsonb_build_object('id', %(new)s::text, 'name', %(name)s::text,
                'hint', %(hint)s::text, 'expires_at', now() + interval '25 weeks'){more}
        ) AS told) AS one
    """


def _why(text: str) -> str:
    return f"'{text} (rotation ' || %(rotation)s::text || ')'"


REQUEST: Final = (
    """
    INSERT INTO keyturn.api_keys (id, account_id, name, created_by, role, digest, scheme, pepper,
        hint, family_id, created_at, expires_at)
    VALUES (%(new)s, %(account)s, %(name)s, 'client', 'member', %(digest)s, 'hmac-sha256', 1,
        %(hint)s, %(old)s, now(), now() + interval '25 weeks')
    """,
    "INSERT INTO keyturn.key_uses (key_id) VALUES (%(new)s)",
    _audit("key.created", "%(new)s", change="1, NULL, 'active'", actor="client"),
    _event(
        0,
        "key.issued",
        "%(new)s",
        ", 'family_id', %(old)s::text, 'expires_at', now() + interval '25 weeks'",
    ),
    """
    INSERT INTO keyturn.rotations (id, account_id, family_id, old_key_id, new_key_id, state,
        requested_by, sealed, sealed_kek, sealed_until, issued_at, next_check_at)
    VALUES (%(rotation)s, %(account)s, %(old)s, %(old)s, %(new)s, 'issued', 'client', %(box)s, 1,
        now() + interval '3 days', now(), now() + interval '3 days')
    """,
    _audit("rotation.issued", "%(old)s", _why("successor ' || %(new)s::text || '"), actor="client"),
    _mail(1, "rotation.issued", ", 'claim_by', now() + interval '3 days', 'sink', 'claim'"),
)
CLAIM: Final = (
    """
    UPDATE keyturn.rotations SET claimed_at = now(), claimed_by = 'client', sealed = NULL,
        sealed_kek = NULL, next_check_at = %(ends)s WHERE id = %(rotation)s
    """,
    _audit("rotation.claimed", "%(old)s", _why("by the holder of the old key"), actor="client"),
)
USE: Final = (
    """
    UPDATE keyturn.key_uses SET first_used_at = now(), last_used_at = now(), uses = 1
    WHERE key_id = %(new)s
    """,
)
END: Final = (
    """
    UPDATE keyturn.rotations SET state = 'draining', confirmed_at = now(), confirmed_by = 'use',
        retire_at = now() WHERE id = %(rotation)s
    """,
    _audit("rotation.confirmed", "%(old)s", _why("by use")),
    """
    UPDATE keyturn.rotations SET state = 'retired', retired_at = now(), undo_until = now()
    WHERE id = %(rotation)s
    """,
    _audit("rotation.retired", "%(old)s", _why("quiet")),
    """
    INSERT INTO keyturn.holds (id, key_id, source, kind, placed_at, reason)
    VALUES (%(hold)s, %(old)s, 'keyturn', 'rotated', now(), 'replaced by ' || %(new)s::text)
    """,
    _audit(
        "hold.placed",
        "%(old)s",
        "'keyturn/rotated: replaced by ' || %(new)s::text",
        account="NULL",
    ),
    """
    UPDATE keyturn.api_keys SET held = true, status = 'retired', version = version + 1
    WHERE id = %(old)s
    """,
    _audit("key.rotated", "%(old)s", "'keyturn/rotated'", "2, 'active', 'retired'"),
    _event(2, "key.rotated", "%(old)s"),
    "UPDATE keyturn.rotations SET state = 'completed', ended_at = now() WHERE id = %(rotation)s",
    _audit("rotation.completed", "%(old)s", _why("undo_ended")),
    """
    UPDATE keyturn.api_keys SET deleted_at = now(), status = 'deleted', version = version + 1
    WHERE id = %(old)s
    """,
    _audit("key.deleted", "%(old)s", "'rotated'", "3, 'retired', 'deleted'"),
    _event(3, "key.deleted", "%(old)s"),
    _mail(4, "rotation.completed"),
)
