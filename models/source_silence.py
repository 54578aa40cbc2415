"""Sources that have not been heard for longer than is normal: one alarm for each silence."""

from collections.abc import Mapping
from datetime import timedelta

from .base import Tx

FLOW = "upkeep.watch_sources"


def watch(tx: Tx, normal: Mapping[str, timedelta]) -> int:
    """Look when each source was last heard, and tell of those that are silent for too long.

    `normal` is by source the longest time without a message; a source that is not in it is not
    watched. What is received again for a second time is no message. Counts the alarms. A source
    that nothing was ever received from is silent since it was first looked at.
    """
    if not normal:
        tx.execute("DELETE FROM keyturn.source_silences")
        return 0
    told = tx.rows(_LOOK, sources=list(normal), normals=[normal[source] for source in normal])
    for row in told:
        tx.alarm("source_silent", source=row["source"], since=row["since"].isoformat())
    return len(told)


def silent(tx: Tx) -> dict[str, float]:
    """The sources whose silence a person was told of, each with the seconds that it lasts."""
    rows = tx.rows(
        """
        SELECT s.source, extract(epoch FROM :now - s.since)::float8 AS seconds
        FROM keyturn.source_silences s
        WHERE s.told_at IS NOT NULL AND NOT EXISTS (
            SELECT FROM keyturn.inbox i WHERE i.source = s.source AND i.id = (
                SELECT max(n.id) FROM keyturn.inbox n WHERE n.source = s.source)
              AND i.received_at > s.told_at)
        """
    )
    return {row["source"]: row["seconds"] for row in rows}


# The newest row of a source is found by the index (source, id). Retention removes old rows, so that
# what was seen before counts where nothing is left.
_LOOK = """
    WITH watched AS MATERIALIZED (
        SELECT w.source, w.normal, (
            SELECT i.received_at FROM keyturn.inbox i WHERE i.source = w.source
            ORDER BY i.id DESC LIMIT 1) AS heard
        FROM unnest(CAST(:sources AS text[]), CAST(:normals AS interval[])) AS w (source, normal)
    ), forgotten AS (
        DELETE FROM keyturn.source_silences WHERE source <> ALL(CAST(:sources AS text[]))
    ), before AS (
        SELECT w.source, w.normal, s.told_at,
               greatest(s.since, w.heard) AS since,
               coalesce(w.heard > s.since, false) AS heard_again
        FROM watched w LEFT JOIN keyturn.source_silences s USING (source)
    ), after AS (
        INSERT INTO keyturn.source_silences AS s (source, since, told_at)
        SELECT source, coalesce(since, :now),
               CASE WHEN since < :now - normal
                    THEN CASE WHEN heard_again THEN :now ELSE coalesce(told_at, :now) END END
        FROM before ORDER BY source
        ON CONFLICT (source) DO UPDATE SET since = excluded.since, told_at = excluded.told_at
        WHERE (s.since, s.told_at) IS DISTINCT FROM (excluded.since, excluded.told_at)
        RETURNING source, since, told_at
    )
    SELECT a.source, a.since FROM after a JOIN before b USING (source)
    WHERE a.told_at IS NOT NULL AND (b.told_at IS NULL OR b.heard_again)
    ORDER BY a.source
"""
