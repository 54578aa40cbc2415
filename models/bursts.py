"""Sources that cut many accounts at once: nothing irreversible follows unseen (rule 2.8)."""

from collections.abc import Collection

from .base import Tx
from .policy import Policy


def watch(tx: Tx, sources: Collection[str], policy: Policy) -> None:
    """Raise the alarm for those of the sources that have just cut more accounts than usual.

    They still cut. Their deletions wait for an operator, except those that one has confirmed.
    """
    if not sources:
        return
    found = tx.execute(
        """
        SELECT source FROM keyturn.holds
        WHERE source = ANY(:sources) AND account_id IS NOT NULL AND placed_at > :now - :window
        GROUP BY source HAVING count(DISTINCT account_id) > :most
        """,
        sources=sorted(sources),
        window=policy.burst_window,
        most=policy.burst_accounts,
    )
    for source in found.scalars().all():
        tx.alarm("source_cuts_many", source=source, more_than=policy.burst_accounts)
        tx.execute(
            """
            UPDATE keyturn.holds SET confirm = true
            WHERE source = :source AND kind = 'deleted' AND placed_at > :now - :window
              AND confirmed_at IS NULL
            """,
            source=source,
            window=policy.burst_window,
        )
