"""The audit's seals: a chain of hashes over its entries, by which a later change of them shows.

A seal covers all entries of a range of transaction ids in which nothing runs any more. Row ids
would not do: a transaction that commits late has lower ones than entries that were sealed before.

Transaction ids mean something within one PostgreSQL cluster. After a restore into another one they
may begin again lower: what the new cluster adds is a span of its own, which begins with a row id
(those go on), and each seal belongs to one span.

docs/audit.md says how to recompute a seal without this code.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from .base import Step, Tx
from .policy import Policy

HELD_UP_AFTER: Final = timedelta(hours=1)
"""An entry that is not sealed after this is an alarm: some transaction has run as long."""

_FORM: Final = "keyturn-audit-1"
"""The first field of what a seal's hash is over; another form of hashing would have another."""

_LAST: Final = 2**63 - 1
XMIN: Final = "CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)"
XMAX: Final = XMIN.replace("xmin", "xmax")


@dataclass(frozen=True, slots=True)
class Seal:
    """One seal: its entries' transaction ids are from `from_transaction` to below `to_transaction`.

    `cluster` gave those ids, and `from_id` is the row id that its span begins with. `content` is
    the SHA-256 of the entries, `hash` that of all other fields and the hash before.
    """

    number: int
    cluster: int
    from_id: int
    from_transaction: int
    to_transaction: int
    entries: int
    first_id: int
    last_id: int
    sealed_at: datetime
    content: bytes
    hash: bytes


COLUMNS: Final = ", ".join(f"s.{name}" for name in Seal.__dataclass_fields__)
_FIELDS: Final = COLUMNS.removesuffix(", s.hash")


def _text(column: str) -> str:
    return f"CAST({column} AS text)"


def _time(column: str) -> str:
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _netstrings(values: Sequence[str]) -> str:
    """Texts as one, in which each can be told from the next: `4:text,`, and `-,` for NULL."""
    return " || ".join(
        f"coalesce(octet_length(convert_to({value}, 'UTF8')) || ':' || {value}, '-') || ','"
        for value in values
    )


_ENTRY: Final = _netstrings(
    [
        *(_text("e.transaction_id"), _text("e.id"), _time("e.at"), "e.actor", "e.action"),
        *(_text("e.account_id"), _text("e.key_id"), _text("e.version")),
        *("e.before", "e.after", "e.why"),
    ]
)
_FOUND: Final = f"""
    count(*) AS entries, min(e.id) AS first_id, max(e.id) AS last_id, sha256(convert_to(
        coalesce(string_agg({_ENTRY}, '' ORDER BY e.transaction_id, e.id), ''), 'UTF8')) AS content
"""
_NUMBERS: Final = (
    *("number", "cluster", "from_id", "from_transaction", "to_transaction"),
    *("entries", "first_id", "last_id"),
)
_HEADER: Final = _netstrings(
    [
        f"'{_FORM}'",
        "encode(coalesce(p.hash, CASE WHEN s.number = 1 THEN decode(repeat('00', 32), 'hex') END),"
        " 'hex')",
        *(_text(f"s.{name}") for name in _NUMBERS),
        _time("s.sealed_at"),
        "encode(s.content, 'hex')",
    ]
)
_HASH: Final = f"sha256(convert_to({_HEADER}, 'UTF8'))"

# The cluster that this is, and the row id that its span begins with. In a cluster that has sealed
# nothing yet that is the first one after all that came with the restore: what carries a transaction
# id that is still to come here, and whatever was sealed there.
CURRENT: Final = f"""
    SELECT here.system_identifier AS cluster,
           CASE WHEN newest.cluster = here.system_identifier THEN newest.from_id
           ELSE 1 + greatest(0, (SELECT max(last_id) FROM keyturn.audit_seals),
               (SELECT max(old.id) FROM (
                   SELECT id FROM keyturn.audit WHERE transaction_id >= {XMAX} OFFSET 0) old))
           END AS from_id
    FROM pg_control_system() here LEFT JOIN (
        SELECT cluster, from_id FROM keyturn.audit_seals ORDER BY number DESC LIMIT 1
    ) newest ON true
"""

CHECKED: Final = f"""
    WITH current AS MATERIALIZED ({CURRENT})
    SELECT {COLUMNS}, found.entries AS found, found.content = s.content AS entries_match,
           {_HASH} = s.hash AS seal_matches
    FROM current CROSS JOIN keyturn.audit_seals s
    LEFT JOIN keyturn.audit_seals p ON p.number = s.number - 1
    CROSS JOIN LATERAL (
        SELECT {_FOUND} FROM keyturn.audit e
        WHERE e.transaction_id >= s.from_transaction AND e.transaction_id < s.to_transaction
          AND e.id >= s.from_id AND e.id < coalesce(
            (SELECT min(n.from_id) FROM keyturn.audit_seals n WHERE n.from_id > s.from_id),
            CASE WHEN current.from_id > s.from_id THEN current.from_id END, {_LAST})
    ) found
"""
"""Seals beside what there is now in their ranges; a WHERE about `s` may follow."""

_END = f"""
    SELECT max(transaction_id) + 1 FROM (
        SELECT transaction_id FROM keyturn.audit
        WHERE transaction_id >= :from_transaction AND id >= :from_id AND id < :until_id
          AND transaction_id < CASE WHEN :complete THEN {_LAST} ELSE {XMIN} END
        ORDER BY transaction_id LIMIT :batch
    ) batch
"""
_ADD = f"""
    INSERT INTO keyturn.audit_seals
        (number, cluster, from_id, from_transaction, to_transaction, entries, first_id, last_id,
         sealed_at, content, hash)
    SELECT {_FIELDS}, {_HASH}
    FROM (SELECT CAST(:previous AS bytea) AS hash) p CROSS JOIN (
        SELECT CAST(:number AS bigint) AS number, CAST(:cluster AS bigint) AS cluster,
               CAST(:from_id AS bigint) AS from_id,
               CAST(:from_transaction AS bigint) AS from_transaction,
               CAST(:to_transaction AS bigint) AS to_transaction, :now AS sealed_at, found.*
        FROM (
            SELECT {_FOUND} FROM keyturn.audit e
            WHERE e.transaction_id >= :from_transaction AND e.transaction_id < :to_transaction
              AND e.id >= :from_id AND e.id < :until_id
        ) found
    ) s
    ON CONFLICT (number) DO NOTHING
    RETURNING entries
"""


@dataclass(frozen=True, slots=True)
class _Open:
    """What is to be sealed next: entries from `from_transaction` on, with these row ids.

    `complete`: their cluster is gone, so that none of its transactions can still commit.
    """

    cluster: int
    from_id: int
    until_id: int
    from_transaction: int
    complete: bool


def step(tx: Tx, policy: Policy) -> Step:
    """Seal one batch of what no running transaction can add to any more.

    A batch ends between two transactions, so the entries of one that wrote more are one seal. Of
    two that do this at once, one adds the seal and the other nothing.
    """
    newest = find_newest(tx)
    for span in _spans(tx, newest):
        found = {
            "cluster": span.cluster,
            "from_id": span.from_id,
            "until_id": span.until_id,
            "from_transaction": span.from_transaction,
        }
        end = tx.scalar(_END, complete=span.complete, batch=policy.seal_batch, **found)
        if end is not None:
            number, previous = (newest.number + 1, newest.hash) if newest else (1, None)
            added = tx.scalar(_ADD, number=number, previous=previous, to_transaction=end, **found)
            return Step(added or 0, finished=False)
        if not span.complete:
            _tell_held_up(tx, span)
    return Step(0, finished=True)


def find_newest(tx: Tx) -> Seal | None:
    """The last seal of the chain, None before the first."""
    row = tx.row(f"SELECT {COLUMNS} FROM keyturn.audit_seals s ORDER BY s.number DESC LIMIT 1")
    return Seal(**row) if row else None


def _spans(tx: Tx, newest: Seal | None) -> Iterator[_Open]:
    """Where entries may wait to be sealed: in the newest span, and what was left of the one before.

    Before the first seal of all, that one is what came with a restore from nobody knows where.
    """
    current = tx.row(CURRENT)
    assert current is not None
    cluster, from_id = current["cluster"], current["from_id"]
    if newest and newest.from_id == from_id:
        yield _Open(cluster, from_id, _LAST, newest.to_transaction, complete=False)
        return
    if newest:
        yield _Open(newest.cluster, newest.from_id, from_id, newest.to_transaction, complete=True)
    else:
        yield _Open(0, 0, from_id, 0, complete=True)
    yield _Open(cluster, from_id, _LAST, 0, complete=False)


def _tell_held_up(tx: Tx, span: _Open) -> None:
    since = tx.scalar(
        """
        SELECT at FROM (
            SELECT at FROM keyturn.audit WHERE transaction_id >= :since AND id >= :from_id
            ORDER BY transaction_id LIMIT 1
        ) oldest WHERE at < :now - :late
        """,
        since=span.from_transaction,
        from_id=span.from_id,
        late=HELD_UP_AFTER,
    )
    if since is not None:
        tx.alarm("audit_unsealed", since=since)
