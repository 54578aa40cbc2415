"""What Keyturn promises of bulk operations: each a query that must find nothing."""

from .operation_steps import NOT_HANDED_OVER
from .promises import Promise

ADVANCES = Promise(
    "operations_advance",
    "Every operation that is to go on moves, or waits for something that is there.",
    f"""
    SELECT o.id FROM keyturn.operations o
    WHERE o.state = 'running' AND o.turn_at < :now - :operation AND NOT EXISTS (
        SELECT FROM keyturn.operation_keys p LEFT JOIN keyturn.rotations r ON r.id = p.rotation_id
        WHERE p.operation_id = o.id AND p.wave = o.wave AND CASE o.waits_for
            WHEN 'retries' THEN p.state = 'waiting' AND p.next_attempt_at > :now - :operation
            WHEN 'hand_overs' THEN {NOT_HANDED_OVER} END)
    """,
    "operation",
)

ONCE = Promise(
    "operation_keys_once",
    "An operation has a key once, and each key that it rotated has the rotation that it made.",
    """
    SELECT p.key_id AS id FROM keyturn.operation_keys p
    WHERE {operated} GROUP BY p.operation_id, p.key_id HAVING count(*) > 1
    UNION
    SELECT p.key_id FROM keyturn.operation_keys p LEFT JOIN keyturn.rotations r
      ON r.id = p.rotation_id
    WHERE {operated} AND p.state = 'issued'
      AND (r.operation_id, r.old_key_id) IS DISTINCT FROM (p.operation_id, p.key_id)
    """,
)

TOLD = Promise(
    "operation_owners_told",
    "Who owns a key that an operation rotated is told once its wave is done, or it stands still.",
    """
    SELECT p.key_id AS id FROM keyturn.operation_keys p
    JOIN keyturn.operations o ON o.id = p.operation_id
    WHERE {operated} AND p.state = 'issued' AND NOT p.told
      AND (o.state <> 'running' OR p.wave < o.wave)
    """,
)

OF_OPERATIONS = (ADVANCES, ONCE, TOLD)
