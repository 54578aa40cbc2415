"""When a key authenticates: the one predicate, and the status that caches it.

Both are SQL over `k` (keyturn.api_keys) and `a` (keyturn.accounts), on the transaction's instant.
"""

WORKS = "NOT a.held AND NOT k.held AND k.deleted_at IS NULL AND :now < k.expires_at"
"""A key authenticates if and only if this holds."""

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
        WHEN k.held OR a.held THEN 'disabled'
        ELSE 'active'
    END
"""
"""`active` exactly where WORKS holds; otherwise the first reason why not.

`expired` is for ever: a transaction that began before the key's end must not undo one that began
after it.
"""
