"""One message to each owner and wave: which of their keys have a successor by now."""

from uuid import UUID

from .base import Tx
from .policy import Policy
from .rotation_policy import CLAIM

KIND = "operation.issued"

_TELL = f"""
WITH told AS (
    UPDATE keyturn.operation_keys SET told = true
    WHERE operation_id = :operation AND wave = :wave AND state = 'issued' AND NOT told
    RETURNING account_id, rotation_id
), named AS (
    SELECT t.account_id, k.id, k.name, k.hint, k.expires_at, r.new_key_id, r.sealed_until,
           r.sink = '{CLAIM}' AS to_claim,
           row_number() OVER (PARTITION BY t.account_id ORDER BY k.expires_at, k.id) AS place
    FROM told t
    JOIN keyturn.rotations r ON r.id = t.rotation_id AND r.state <> 'cancelled'
    JOIN keyturn.api_keys k ON k.id = r.old_key_id
)
INSERT INTO keyturn.outbox (id, channel, kind, account_id, payload, created_at, due_at)
SELECT gen_random_uuid(), 'mail', '{KIND}', n.account_id, jsonb_build_object(
        'operation_id', CAST(:operation AS uuid),
        'account', a.email,
        'total', count(*),
        'to_claim', count(*) FILTER (WHERE n.to_claim),
        'claim_by', min(n.sealed_until) FILTER (WHERE n.to_claim),
        'keys', jsonb_agg(
            jsonb_build_object('id', n.id, 'name', n.name, 'hint', n.hint,
                'expires_at', n.expires_at, 'successor_id', n.new_key_id)
            ORDER BY n.place
        ) FILTER (WHERE n.place <= :names)
    ), :now, :now
FROM named n JOIN keyturn.accounts a ON a.id = n.account_id
GROUP BY n.account_id, a.email
"""


def tell_owners(tx: Tx, operation_id: UUID, wave: int, policy: Policy) -> int:
    """Commit a message to each owner who was not yet told of keys issued in this wave; how many.

    The caller holds the operation's row, so that nobody is told twice.
    """
    posted = tx.count(_TELL, operation=operation_id, wave=wave, names=policy.notice_keys)
    if posted:
        tx.ring("outbox.deliver")
    return posted
