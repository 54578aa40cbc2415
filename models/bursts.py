"""Sources that cut many accounts at once: nothing irreversible follows unseen (rule 2.8)."""

from collections.abc import Collection

from .base import Tx
from .event_order import KIND
from .policy import Policy

_KINDS = len(set(KIND.values()))
"""Holds that one source can have on one account: of so many times the accounts, one is over."""


def watch(tx: Tx, sources: Collection[str], policy: Policy) -> None:
    """Raise the alarm for those of the sources that have just cut more accounts than usual.

    They still cut. Their deletions wait for an operator, except those that one has confirmed.
    """
    if not sources:
        return
    found = tx.execute(
        """
        SELECT source FROM unnest(CAST(:sources AS text[])) AS s (source)
        WHERE :most < (
            SELECT count(DISTINCT account_id) FROM (
                SELECT h.account_id FROM keyturn.holds h
                WHERE h.source = s.source AND h.account_id IS NOT NULL
                  AND h.placed_at > :now - :window
                LIMIT :enough) recent)
        """,
        sources=sorted(sources),
        window=policy.burst_window,
        most=policy.burst_accounts,
        enough=_KINDS * policy.burst_accounts + 1,
    )
    for source in found.scalars().all():
        tx.alarm("source_cuts_many", source=source, more_than=policy.burst_accounts)
        tx.execute(
            """
            UPDATE keyturn.holds SET confirm = true
            WHERE source = :source AND kind = 'deleted' AND placed_at > :now - :window
              AND NOT confirm AND confirmed_at IS NULL
            """,
            source=source,
            window=policy.burst_window,
        )
