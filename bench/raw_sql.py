"""The other side: one statement that does the same writes, as one would type it for the occasion.

It knows beforehand what `settle` has to find out: that all these keys are active, and what they
become. Rows, columns and indexes are the same.
"""

from typing import Final

_WRITES = """
WITH changed AS (
    UPDATE keyturn.api_keys SET status = '{status}', version = version + 1
    WHERE {scope} AND status = 'active'
    RETURNING id, account_id, version
), audited AS (
    INSERT INTO keyturn.audit
        (at, actor, action, account_id, key_id, version, before, after, why)
    SELECT now(), 'keyturn', 'key.{status}', account_id, id, version, 'active', '{status}', '{why}'
    FROM changed
), numbered AS (
    SELECT id, account_id,
           (row_number() OVER (PARTITION BY account_id ORDER BY id) - 1) / %(page)s AS page
    FROM changed
)
INSERT INTO keyturn.outbox (id, channel, kind, priority, account_id, payload, created_at, due_at)
SELECT gen_random_uuid(), 'events', 'key.{status}', 5, account_id,
       jsonb_build_object('account_id', account_id, 'key_ids', jsonb_agg(id ORDER BY id)),
       now(), now()
FROM numbered GROUP BY account_id, page
"""
DISABLE: Final = _WRITES.format(
    status="disabled",
    why="account_held",
    scope="account_id = (SELECT id FROM keyturn.accounts WHERE email = 'a1@example.com')",
)
EXPIRE: Final = _WRITES.format(
    status="expired",
    why="validity_ended",
    scope="expires_at <= now()",
)
