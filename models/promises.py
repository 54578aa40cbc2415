"""What Keyturn promises of keys, events and messages: each a query that must find nothing.

The queries go by evidence: holds, times, uses and the audit. They use neither the predicate nor the
flags by which it is quick, for a fault there must show here. `{keys}`, `{accounts}` and so on are
where a check that does not look at everything says what it looks at.
"""

from dataclasses import dataclass

from .account_events import PARK_AFTER
from .audit_seal import CHECKED
from .holds import CONCERNS, SINCE
from .notice_ranges import LOOK_BACK


@dataclass(frozen=True)
class Promise:
    """A sentence, and the query of the ids of whatever breaks it.

    `tolerance` names the field of `Tolerance` that the query allows for; without one, none.
    """

    name: str
    sentence: str
    query: str
    tolerance: str | None = None


STANDS = "h.placed_at IS NOT NULL AND h.lifted_at IS NULL"
"""A hold `h` stands: the row alone does not say so, it stays after lifting."""

USES = Promise(
    "no_use_after_stop",
    "No use of a key is recorded after a hold of it, its account or tenant, its end or deletion.",
    f"""
    SELECT k.id FROM keyturn.api_keys k JOIN keyturn.key_uses u ON u.key_id = k.id
    JOIN keyturn.accounts a ON a.id = k.account_id
    WHERE {{keys}} AND (
        u.last_used_at > least(k.expires_at, k.deleted_at) + :in_flight
        OR EXISTS (
            SELECT FROM keyturn.holds h WHERE (h.key_id = k.id OR {CONCERNS})
            AND u.last_used_at > {SINCE} + :in_flight
            AND (h.lifted_at IS NULL OR u.last_used_at < h.lifted_at)
        )
    )
    """,
    "in_flight",
)

STATUS = Promise(
    "status_is_true",
    "A key's status says what its holds, its end and its deletion say.",
    # It may differ while the last of these is younger than the tolerance. What expired too early
    # breaks another promise.
    f"""
    SELECT k.id FROM keyturn.api_keys k JOIN keyturn.accounts a ON a.id = k.account_id
    CROSS JOIN LATERAL (
        SELECT coalesce(bool_or(h.lifted_at IS NULL), false) AS stand,
               coalesce(bool_or(h.lifted_at IS NULL AND h.kind = 'rotated'), false) AS replaced,
               max(greatest(h.placed_at, h.lifted_at)) AS changed_at
        FROM keyturn.holds h
        WHERE h.placed_at IS NOT NULL AND (h.key_id = k.id OR {CONCERNS})
    ) holds
    WHERE {{keys}} AND k.status <> CASE
            WHEN k.deleted_at IS NOT NULL THEN 'deleted'
            WHEN k.expires_at <= :now OR k.status = 'expired' THEN 'expired'
            WHEN replaced THEN 'retired' WHEN stand THEN 'disabled' ELSE 'active' END
        AND :now - :settle > greatest(k.created_at, k.deleted_at, changed_at, a.tenant_since,
            CASE WHEN k.expires_at <= :now THEN k.expires_at END)
    """,
    "settle",
)

FLAGS = Promise(
    "flags_agree",
    "The flag `held` of a tenant, account or key says whether a hold of it stands.",
    f"""
    SELECT t.id FROM keyturn.tenants t
    WHERE {{tenants}} AND t.held <> EXISTS (
        SELECT FROM keyturn.holds h WHERE h.tenant_id = t.id AND {STANDS})
    UNION ALL
    SELECT a.id FROM keyturn.accounts a
    WHERE {{accounts}} AND a.held <> EXISTS (
        SELECT FROM keyturn.holds h WHERE h.account_id = a.id AND {STANDS})
    UNION ALL
    SELECT k.id FROM keyturn.api_keys k
    WHERE {{keys}} AND k.held <> EXISTS (
        SELECT FROM keyturn.holds h WHERE h.key_id = k.id AND {STANDS})
    """,
)

EARLY = Promise(
    "nothing_early",
    "No key expires before its end.",
    # Each expiry carries the instant by which it was decided. The status alone is compared with an
    # instant that may be a moment older than the row.
    """
    SELECT k.id FROM keyturn.api_keys k
    WHERE {keys} AND (
        (k.status = 'expired' AND k.expires_at > :now + :in_flight)
        OR EXISTS (SELECT FROM keyturn.audit e
            WHERE e.key_id = k.id AND e.after = 'expired' AND e.at < k.expires_at)
    )
    """,
    "in_flight",
)

EVENTS = Promise(
    "events_finish",
    "Every event is finished, or visibly waits, is parked or rejected.",
    f"""
    SELECT i.id FROM keyturn.inbox i
    WHERE i.state = 'received' AND (
        i.next_attempt_at < :now - :event
        OR (i.reason IS NOT NULL AND i.attempts > {PARK_AFTER})
    )
    UNION ALL
    SELECT i.id FROM keyturn.inbox i
    WHERE {{inbox}} AND i.state IN ('done', 'stale', 'ignored') AND i.finished_at IS NULL
    UNION ALL
    SELECT DISTINCT i.id FROM keyturn.inbox i CROSS JOIN LATERAL
        jsonb_to_recordset(i.subject) AS s (format text, issuer text, value text)
    JOIN keyturn.account_identities n
      ON (n.format, n.issuer, n.value) = (s.format, s.issuer, s.value) AND n.unlinked_at IS NULL
    WHERE {{inbox}} AND i.state = 'waiting_for_account'
      AND i.subject->0->>'format' IS DISTINCT FROM 'tenant'
    UNION ALL
    SELECT DISTINCT i.id FROM keyturn.inbox i CROSS JOIN LATERAL
        jsonb_to_recordset(i.subject) AS s (format text, issuer text, value text)
    JOIN keyturn.tenant_identities n
      ON (n.issuer, n.value) = (coalesce(nullif(s.issuer, ''), i.source), s.value)
    WHERE {{inbox}} AND i.state = 'waiting_for_account' AND s.format = 'tenant'
      AND i.subject->0->>'format' = 'tenant'
    """,
    "event",
)

EFFECTS = Promise(
    "one_effect",
    "An event has its effect once: no hold is placed twice, no key's state changes to itself.",
    """
    SELECT DISTINCT key_id AS id FROM (
        SELECT e.key_id, e.before, e.after,
               lag(e.after) OVER (PARTITION BY e.key_id ORDER BY e.version) AS was
        FROM keyturn.audit e WHERE {key_entries} AND e.version IS NOT NULL
    ) e WHERE e.after = e.before OR e.before IS DISTINCT FROM e.was
    UNION ALL
    SELECT DISTINCT coalesce(key_id, account_id) FROM (
        SELECT e.key_id, e.account_id, e.action, lag(e.action, 1, 'hold.lifted') OVER (
            PARTITION BY e.account_id, e.key_id, split_part(e.why, ': ', 1) ORDER BY e.id) AS was
        FROM keyturn.audit e
        WHERE e.action IN ('hold.placed', 'hold.lifted') AND ({key_entries} OR {account_entries})
    ) e WHERE e.action = e.was
    """,
)

ONCE = Promise(
    "each_event_once",
    "An event that its producer named is kept, and applied, once.",
    """
    SELECT max(i.id) FROM keyturn.inbox i
    WHERE {inbox} AND i.event_id IS NOT NULL AND i.state IN ('received', 'done', 'stale')
    GROUP BY i.source, i.event_id, i.action, i.certainty, i.raw_type, i.occurred_at, i.sequence,
             i.subject, i.new_subject, i.why
    HAVING count(*) > 1
    """,
)

VERSIONS = Promise(
    "audit_is_dense",
    "The audit has every version of a key from 1 to its own, and the last says its status.",
    """
    SELECT k.id FROM keyturn.api_keys k CROSS JOIN LATERAL (
        SELECT count(*) AS entries, min(e.version) AS first, max(e.version) AS last,
               (array_agg(e.after ORDER BY e.version DESC))[1] AS status
        FROM keyturn.audit e WHERE e.key_id = k.id AND e.version IS NOT NULL
    ) e
    WHERE {keys} AND (e.entries, e.first, e.last, e.status)
        IS DISTINCT FROM (k.version, 1, k.version, k.status)
    """,
)

CAUSES = Promise(
    "stops_have_causes",
    "Whatever stopped a key is on record: why, and the hold or rotation that did it.",
    f"""
    SELECT k.id FROM keyturn.api_keys k LEFT JOIN LATERAL (
        SELECT e.why FROM keyturn.audit e WHERE e.key_id = k.id AND e.version IS NOT NULL
        ORDER BY e.version DESC LIMIT 1
    ) e ON true
    WHERE {{keys}} AND k.status <> 'active' AND (
        coalesce(e.why, '') = ''
        OR (k.status = 'disabled' AND NOT EXISTS (
            SELECT FROM keyturn.accounts a JOIN keyturn.holds h ON h.key_id = k.id OR {CONCERNS}
            WHERE a.id = k.account_id AND h.placed_at IS NOT NULL)
            AND NOT EXISTS (SELECT FROM keyturn.audit left_it WHERE left_it.key_id IS NULL
                AND left_it.account_id = k.account_id AND left_it.action = 'account.left'))
        OR (k.status = 'retired' AND NOT EXISTS (
            SELECT FROM keyturn.rotations r WHERE r.old_key_id = k.id AND r.retired_at IS NOT NULL))
    )
    UNION ALL
    SELECT h.id FROM keyturn.holds h
    WHERE ({{held_accounts}} OR {{held_tenants}}) AND {STANDS} AND NOT EXISTS (
        SELECT FROM keyturn.audit e
        WHERE e.account_id = coalesce(h.account_id, h.tenant_id) AND e.key_id IS NULL
          AND e.action = 'hold.placed'
          AND split_part(e.why, ': ', 1) = h.source || '/' || h.kind AND e.at = h.placed_at)
    UNION ALL
    SELECT h.id FROM keyturn.holds h
    WHERE {{held_keys}} AND {STANDS} AND NOT EXISTS (
        SELECT FROM keyturn.audit e WHERE e.key_id = h.key_id AND e.action = 'hold.placed'
          AND split_part(e.why, ': ', 1) = h.source || '/' || h.kind AND e.at = h.placed_at)
    """,
)

NOTICES = Promise(
    "notices_complete",
    "Each threshold that a key has reached has one notice, and none of them is forgotten.",
    # Thresholds of at most half a life apply; where none does, a share of a life that is long
    # enough; and the end itself wherever one of these does.
    f"""
    WITH lives AS (
        SELECT k.id, k.expires_at, extract(epoch FROM k.expires_at - k.created_at) AS life
        FROM keyturn.api_keys k
        WHERE {{keys}} AND k.deleted_at IS NULL AND k.expires_at <= :now + :furthest
          AND k.expires_at > :now - interval '{LOOK_BACK.days - 1} days'
    ), thresholds AS (
        SELECT l.*, s AS before_end FROM lives l, unnest(CAST(:thresholds AS bigint[])) AS s
        WHERE s * 2 <= l.life
    ), due AS (
        SELECT * FROM thresholds
        UNION ALL
        SELECT l.*, floor(l.life * CAST(:share AS float8)) FROM lives l
        WHERE l.life >= :share_min_life AND NOT EXISTS (SELECT FROM thresholds t WHERE t.id = l.id)
        UNION ALL
        SELECT l.*, 0 FROM lives l
        WHERE l.life >= :share_min_life OR EXISTS (SELECT FROM thresholds t WHERE t.id = l.id)
    )
    SELECT DISTINCT d.id FROM due d
    WHERE d.expires_at - d.before_end * interval '1 second' < :now - :notice AND NOT EXISTS (
        SELECT FROM keyturn.notices n WHERE n.key_id = d.id AND n.expires_at = d.expires_at
          AND abs(n.threshold_seconds - d.before_end) <= 1)
    UNION
    SELECT n.key_id FROM keyturn.notices n WHERE {{noticed}}
    GROUP BY n.key_id, n.expires_at, n.threshold_seconds HAVING count(*) > 1
    UNION
    SELECT n.key_id FROM keyturn.notices n LEFT JOIN keyturn.outbox o ON o.id = n.outbox_id
    WHERE {{noticed}} AND n.state = 'planned'
      AND coalesce(o.state, '') <> 'waiting' AND n.planned_at < :now - :notice
    """,
    "notice",
)

OUTBOX = Promise(
    "outbox_drains",
    "Every message that is due leaves.",
    "SELECT o.id FROM keyturn.outbox o WHERE o.state = 'waiting' AND o.due_at < :now - :message",
    "message",
)

SEALS = Promise(
    "seals_match",
    "What was sealed of the audit is as it was, and so are the seals.",
    f"""
    SELECT c.number AS id FROM ({CHECKED} WHERE {{seals}}) c
    WHERE c.entries_match IS NOT TRUE OR c.seal_matches IS NOT TRUE
    """,
)

OF_KEYS = (USES, STATUS, FLAGS, EARLY, VERSIONS, CAUSES)
OF_MESSAGES = (EVENTS, EFFECTS, ONCE, NOTICES, OUTBOX)
OF_AUDIT = (SEALS,)
