"""Which deliveries of a transport were stored already, where it does not name its messages."""

from collections.abc import Sequence

from .base import Tx


def stored(
    tx: Tx, source: str, names: Sequence[str], *, since: str, until: str
) -> dict[str, list[str]]:
    """Of each of `names` the delivery ids `NAME/REST`, with `since` <= REST <= `until`.

    A REST is hexadecimal and begins with a time, so that a search reads a few rows of the index,
    however often a message of that name has come in years.
    """
    rows = tx.rows(
        """
        SELECT name, substr(k.dedup_key, length(kind) + 1) AS delivery_id
        FROM unnest(CAST(:names AS text[])) AS n (name)
        CROSS JOIN (VALUES ('delivery:'), ('rejected:')) AS t (kind)
        JOIN keyturn.inbox_keys k ON k.source = :source
            AND k.dedup_key BETWEEN kind || name || '/' || :since AND kind || name || '/' || :until
        ORDER BY 2
        """,
        source=source,
        names=list(names),
        since=since,
        until=until,
    )
    found: dict[str, list[str]] = {}
    for row in rows:
        # Of a batch each member was stored under the delivery's id and its place in the batch.
        delivery = "/".join(row["delivery_id"].split("/")[:2])
        known = found.setdefault(row["name"], [])
        if delivery not in known:
            known.append(delivery)
    return found
