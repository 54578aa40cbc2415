"""Sources that cut many accounts at once: nothing irreversible follows unseen (rule 2.8)."""

from collections.abc import Collection

from . import audit
from .base import Tx
from .event_order import KIND
from .policy import Policy

CUT_MANY = "source.cut_many"
"""The audit's entry of an alarm: by it no process raises that alarm again for a whole window."""

_KINDS = len(set(KIND.values()))
"""Holds that one source can have on one account: of so many times the accounts, one is over."""


def watch(tx: Tx, sources: Collection[str], policy: Policy) -> None:
    """Raise the alarm for those of the sources that have just cut more accounts than usual.

    They still cut. Their deletions wait for an operator, except those that one has confirmed. A
    source has one alarm in each window, however many batches its cuts come in.
    """
    if not sources:
        return
    found = tx.execute(
        """
        SELECT source FROM unnest(CAST(:sources AS text[])) AS s (source)
        WHERE :most < (
            SELECT count(DISTINCT account_id) FROM (
                (SELECT h.account_id FROM keyturn.holds h
                 WHERE h.source = s.source AND h.account_id IS NOT NULL
                   AND h.placed_at > :now - :window
                 LIMIT :enough)
                UNION ALL
                (SELECT a.id FROM keyturn.holds h JOIN keyturn.accounts a USING (tenant_id)
                 WHERE h.source = s.source AND h.placed_at > :now - :window
                 LIMIT :enough)) recent)
        """,
        sources=sorted(sources),
        window=policy.burst_window,
        most=policy.burst_accounts,
        enough=_KINDS * policy.burst_accounts + 1,
    )
    for source in found.scalars().all():
        if _is_news(tx, source, policy):
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


def _is_news(tx: Tx, source: str, policy: Policy) -> bool:
    """Whether this transaction tells of a source's burst, and not another one in this window.

    Where another one is just about to tell, this one leaves it to that, and waits for nobody: if
    that is rolled back, its batch comes again, and tells then.
    """
    mine = tx.scalar(
        "SELECT pg_try_advisory_xact_lock(hashtextextended(:lock, 0))", lock=f"{CUT_MANY} {source}"
    )
    if not mine:
        return False
    actor = f"source:{source}"
    # A statement of its own: it has to see what was committed before the lock was given.
    told = tx.scalar(
        """
        SELECT EXISTS (SELECT FROM keyturn.audit
                       WHERE action = 'source.cut_many' AND actor = :actor
                         AND at > :now - :window AND at <= :now)
        """,
        actor=actor,
        window=policy.burst_window,
    )
    if not told:
        window = f"{policy.burst_window.total_seconds():.0f} s"
        why = f"more than {policy.burst_accounts} accounts in {window}"
        audit.record(tx, actor, CUT_MANY, why=why)
    return not told
