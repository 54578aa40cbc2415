"""What Keyturn promises of rotations: each a query that must find nothing."""

from .hand_overs import TRIES
from .holds import CONCERNS, SINCE
from .promises import STANDS, Promise
from .rotation_policy import CLAIM
from .rotation_rules import DELIVERED_BY
from .tables import ROTATION_LIVE, ROTATION_OPEN, one_of

_LIVE = f"r.{one_of('state', ROTATION_LIVE)}"
_HELD = f"""
    EXISTS (SELECT FROM keyturn.accounts a JOIN keyturn.holds h ON {CONCERNS}
            WHERE a.id = r.account_id AND {STANDS})
"""

WORKS = Promise(
    "family_works",
    "A family in rotation has a working key, unless its holder, an operator or time ended it.",
    # Its newest key decides: whoever disabled, deleted or outlived that one, it was no rotation.
    f"""
    SELECT r.id FROM keyturn.rotations r JOIN keyturn.api_keys n ON n.id = r.new_key_id
    WHERE {{rotations}} AND {_LIVE} AND NOT {_HELD} AND n.expires_at > :now
      AND NOT EXISTS (
        SELECT FROM keyturn.api_keys k
        WHERE k.family_id = r.family_id AND k.deleted_at IS NULL AND k.expires_at > :now
          AND NOT EXISTS (SELECT FROM keyturn.holds h WHERE h.key_id = k.id AND {STANDS}))
      AND NOT EXISTS (
        SELECT FROM keyturn.holds h WHERE h.key_id = n.id AND {STANDS} AND h.kind <> 'rotated')
      AND NOT EXISTS (
        SELECT FROM keyturn.audit e WHERE e.key_id = n.id AND e.after = 'deleted'
          AND coalesce(e.why, '') NOT IN ('rotated', 'rotation_cancelled'))
    """,
)

CONFIRMED = Promise(
    "confirmed_before_stop",
    "A rotation stops the old key only after its successor was confirmed, unless compromised.",
    """
    SELECT e.key_id AS id FROM keyturn.audit e
    WHERE {key_entries} AND e.version IS NOT NULL
      AND (e.after = 'retired' OR (e.after = 'deleted' AND e.why = 'rotated'))
      AND NOT EXISTS (
        SELECT FROM keyturn.rotations r WHERE r.old_key_id = e.key_id AND r.confirmed_at <= e.at)
      AND NOT EXISTS (
        SELECT FROM keyturn.holds h
        WHERE h.key_id = e.key_id AND h.kind = 'compromised' AND h.placed_at IS NOT NULL)
    UNION
    SELECT r.old_key_id FROM keyturn.rotations r
    JOIN keyturn.key_uses u ON u.key_id = r.new_key_id
    WHERE {rotations} AND r.confirmed_by = 'use'
      AND (u.first_used_at IS NULL OR u.first_used_at > r.confirmed_at)
    """,
)

ONE_OPEN = Promise(
    "one_open_rotation",
    "A family has one open rotation at most, and two live keys at most.",
    f"""
    SELECT r.family_id AS id FROM keyturn.rotations r
    WHERE r.{one_of("state", ROTATION_OPEN)} AND {{rotated_families}}
    GROUP BY r.family_id HAVING count(*) > 1
    UNION
    SELECT k.family_id FROM keyturn.api_keys k
    WHERE {{families}} AND k.deleted_at IS NULL AND k.expires_at > :now AND NOT EXISTS (
        SELECT FROM keyturn.holds h WHERE h.key_id = k.id AND {STANDS} AND h.kind = 'rotated')
    GROUP BY k.family_id HAVING count(*) > 2
    """,
)

SUCCESSOR = Promise(
    "one_successor",
    "A rotation has one successor, of its family and account; no other key joins a family.",
    """
    SELECT k.id FROM keyturn.api_keys k
    WHERE {keys} AND CASE WHEN k.family_id = k.id THEN 0 ELSE 1 END <> (
        SELECT count(*) FROM keyturn.rotations r WHERE r.new_key_id = k.id
          AND r.family_id = k.family_id AND r.account_id = k.account_id)
    UNION ALL
    SELECT r.id FROM keyturn.rotations r JOIN keyturn.api_keys o ON o.id = r.old_key_id
    WHERE {rotations} AND (o.family_id, o.account_id) <> (r.family_id, r.account_id)
    UNION ALL
    SELECT r.id FROM keyturn.rotations r
    WHERE {rotations} AND r.reissued_as IS NOT NULL AND NOT EXISTS (
        SELECT FROM keyturn.rotations n WHERE n.id = r.reissued_as
          AND n.old_key_id = r.old_key_id AND n.issued_at >= r.issued_at)
    """,
)

SECRETS = Promise(
    "secrets_go",
    "A sealed secret goes when it is claimed, when its time ends, and when its account is held.",
    f"""
    SELECT r.id FROM keyturn.rotations r
    WHERE {{rotations}} AND r.sealed IS NOT NULL AND (
        r.state <> 'issued' OR r.claimed_at IS NOT NULL OR r.sealed_until < :now - :rotation
        OR EXISTS (SELECT FROM keyturn.accounts a JOIN keyturn.holds h ON {CONCERNS}
            WHERE a.id = r.account_id AND {STANDS} AND {SINCE} < :now - :rotation)
    )
    """,
    "rotation",
)

ADVANCES = Promise(
    "rotations_advance",
    "No rotation is past its deadline, unless it says what it waits for.",
    f"""
    SELECT r.id FROM keyturn.rotations r JOIN keyturn.api_keys o ON o.id = r.old_key_id
    WHERE {{rotations}} AND {_LIVE} AND r.blocked_reason IS NULL AND NOT {_HELD}
      AND :now - :rotation > greatest(
        (SELECT greatest(max(h.lifted_at), max(a.tenant_since))
         FROM keyturn.accounts a LEFT JOIN keyturn.holds h ON {CONCERNS}
         WHERE a.id = r.account_id),
        CASE WHEN r.state = 'retired' THEN r.undo_until
             WHEN r.state = 'draining' THEN least(r.retire_at, o.expires_at)
             WHEN r.claimed_at IS NULL THEN r.sealed_until ELSE o.expires_at END)
    """,
    "rotation",
)

SCHEDULED = Promise(
    "scheduled_start",
    "A key whose policy rotates it is in rotation when its time has come, or says why not.",
    # Where more are due than a minute may have, the others wait: but then some were started.
    """
    SELECT s.key_id AS id FROM keyturn.rotation_schedule s
    WHERE s.next_at < :now - :rotation AND s.rotate_at < :now - :rotation
      AND NOT EXISTS (
        SELECT FROM keyturn.rotation_schedule b
        WHERE b.started_at > :now - :rotation - interval '1 minute')
    """,
    "rotation",
)

HANDED_OVER = Promise(
    "hand_overs_true",
    "A sink has a new key where its receipt says so, by the tries that it may have, and else not.",
    # A receipt may come for a rotation that was cancelled during the try.
    f"""
    SELECT h.rotation_id AS id
    FROM keyturn.hand_overs h JOIN keyturn.rotations r ON r.id = h.rotation_id
    WHERE {{rotations}} AND (
        (h.delivered_at IS NOT NULL AND r.claimed_at IS NULL AND r.state <> 'cancelled')
        OR (h.delivered_at IS NULL AND r.claimed_by = '{DELIVERED_BY}' || h.sink)
        OR (h.state IN ('delivered', 'done') AND (h.receipt IS NULL OR h.delivered_at IS NULL))
        OR (h.state = 'failed' AND h.error IS NULL)
        OR h.attempts NOT BETWEEN 0 AND {TRIES})
    UNION
    SELECT r.id FROM keyturn.rotations r LEFT JOIN keyturn.hand_overs h ON h.rotation_id = r.id
    WHERE {{rotations}} AND r.sink <> coalesce(h.sink, '{CLAIM}')
    """,
)

HANDING_OVER = Promise(
    "hand_overs_advance",
    "What a sink has still to take is tried at its time, or another key for that sink is.",
    """
    SELECT h.rotation_id AS id
    FROM keyturn.hand_overs h JOIN keyturn.rotations r ON r.id = h.rotation_id
    WHERE {rotations} AND (h.state = 'waiting' OR (h.state = 'delivered'
        AND (r.confirmed_at IS NOT NULL OR r.ended_at IS NOT NULL)))
      AND (h.due_at > :now + interval '1 day'
        OR (h.due_at < :now - :rotation AND NOT EXISTS (
            SELECT FROM keyturn.hand_overs b WHERE b.sink = h.sink
              AND (b.due_at > :now - :rotation OR b.delivered_at > :now - :rotation))))
    """,
    "rotation",
)

OF_ROTATIONS = (
    *(WORKS, CONFIRMED, ONE_OPEN, SUCCESSOR, SECRETS, ADVANCES, SCHEDULED),
    *(HANDED_OVER, HANDING_OVER),
)
