"""What Keyturn promises of keys that others know: each a query that must find nothing."""

from .holds import CONCERNS
from .promises import STANDS, Promise

STOPPED = Promise(
    "compromised_stays_stopped",
    "A key that others know is stopped for good, and so are the retired keys of its family.",
    # Evidence is the row of its report, and whatever was placed then.
    f"""
    SELECT c.key_id AS id FROM keyturn.compromises c JOIN keyturn.api_keys k ON k.id = c.key_id
    WHERE {{keys}} AND k.deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM keyturn.holds h WHERE h.key_id = k.id AND h.kind = 'compromised' AND {STANDS})
    UNION
    SELECT h.key_id FROM keyturn.holds h JOIN keyturn.api_keys k ON k.id = h.key_id
    WHERE {{keys}} AND h.kind = 'compromised' AND h.lifted_at IS NOT NULL
    UNION
    SELECT o.id FROM keyturn.compromises c
    JOIN keyturn.api_keys k ON k.id = c.key_id
    JOIN keyturn.api_keys o ON o.family_id = k.family_id AND o.id <> k.id
    JOIN keyturn.rotations r ON r.old_key_id = o.id AND r.retired_at <= c.reported_at
    WHERE {{keys}} AND r.state = 'retired' AND o.deleted_at IS NULL AND NOT EXISTS (
        SELECT FROM keyturn.holds h WHERE h.key_id = o.id AND h.kind = 'compromised' AND {STANDS})
    """,
)

FOLLOWED = Promise(
    "compromises_followed",
    "What is to follow the hold of a key that others know is done, or tried again.",
    f"""
    SELECT c.key_id AS id FROM keyturn.compromises c
    JOIN keyturn.api_keys k ON k.id = c.key_id
    WHERE {{keys}} AND c.state = 'open' AND c.next_attempt_at < :now - :rotation
      AND NOT EXISTS (
        SELECT FROM keyturn.accounts a LEFT JOIN keyturn.holds h ON {CONCERNS}
        WHERE a.id = c.account_id AND ({STANDS} OR h.lifted_at > :now - :rotation
            OR a.tenant_since > :now - :rotation))
    UNION
    SELECT c.key_id FROM keyturn.compromises c JOIN keyturn.api_keys k ON k.id = c.key_id
    WHERE {{keys}} AND c.outcome = 'issued' AND NOT EXISTS (
        SELECT FROM keyturn.rotations r WHERE r.id = c.rotation_id AND r.reason = 'compromised')
    """,
    "rotation",
)

UNCLAIMABLE = Promise(
    "compromised_proves_nothing",
    "No successor was fetched with a key after it was known to others.",
    """
    SELECT r.id FROM keyturn.rotations r
    JOIN keyturn.compromises c ON c.key_id = r.old_key_id
    JOIN keyturn.audit e ON e.key_id = r.old_key_id AND e.action = 'rotation.claimed'
    WHERE {rotations} AND e.at > c.reported_at + :in_flight
      AND e.why LIKE 'by the holder of the old key%'
    """,
    "in_flight",
)

OF_COMPROMISES = (STOPPED, FOLLOWED, UNCLAIMABLE)
