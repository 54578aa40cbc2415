"""When a key authenticates: the one predicate, and the status that caches it.

Both are SQL over `k` (keyturn.api_keys) and `a` (keyturn.accounts), on the transaction's instant.
"""

HELD = """
    (a.held OR a.tenant_id IS NOT NULL
        AND (SELECT t.held FROM keyturn.tenants t WHERE t.id = a.tenant_id))
"""
"""Whether an account `a` is held: by a hold of its own, or by one of the tenant that it is in."""

HELD_JOINED = "(a.held OR coalesce(t.held, false))"
"""The same where its tenant `t`, or none, is joined: what a single look-up takes less time for."""

_WORKS = "NOT {held} AND NOT k.held AND k.deleted_at IS NULL AND :now < k.expires_at"
WORKS = _WORKS.format(held=HELD)
"""A key authenticates if and only if this holds."""

WORKS_JOINED = _WORKS.format(held=HELD_JOINED)
"""The same with HELD_JOINED."""

REPLACED = """
    EXISTS (
        SELECT FROM keyturn.holds h
        WHERE h.key_id = k.id AND h.kind = 'rotated' AND h.lifted_at IS NULL
    )
"""

STATUS = f"""
    CASE
        WHEN k.deleted_at IS NOT NULL THEN 'deleted'
        WHEN k.status = 'expired' OR :now >= k.expires_at THEN 'expired'
        WHEN k.held AND {REPLACED} THEN 'retired'
        WHEN k.held OR {HELD} THEN 'disabled'
        ELSE 'active'
    END
"""
"""`active` exactly where WORKS holds; otherwise the first reason why not.

`expired` is for ever: a transaction that began before the key's end must not undo one that began
after it.
"""
