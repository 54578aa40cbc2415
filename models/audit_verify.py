"""Whether the audit is as it was sealed, and whether its seals are those that somebody kept.

The chain alone shows what was changed, removed or added within it. That its end was cut off, or all
of it written anew, only an anchor shows: the newest seal's number and hash, kept where nobody who
may write to the database can write.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from . import audit_seal
from .audit_seal import CHECKED, CURRENT, XMAX, Seal
from .base import Database, Tx
from .errors import NotFound, Refused

SHOWN: Final = 20
"""Misplaced entries that a problem names; it counts all."""
PAGE: Final = 100
"""Seals that one query looks at, a million entries at most by the default batch."""
TIMEOUT_MS: Final = 15 * 60 * 1000
"""The longest that one query may run."""


class Anchor(BaseModel):
    """What is kept of a chain elsewhere: its newest seal, and how many entries it covers."""

    model_config = ConfigDict(frozen=True, strict=True)

    seal: Annotated[int, Field(ge=1)]
    hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    sealed_at: AwareDatetime
    entries: Annotated[int, Field(ge=1)]

    @classmethod
    def parse(cls, text: str | bytes) -> "Anchor":
        """The anchor that `keyturn audit anchor` printed; Refused as `anchor_unreadable`."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            [first, *_] = error.errors(include_url=False, include_input=False)
            where = ".".join(map(str, first["loc"])) or "the document"
            raise Refused(
                "anchor_unreadable",
                f"this is no anchor: {where}: {first['msg']}. Give what `keyturn audit anchor` "
                "printed, unchanged",
            ) from None


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was sealed. `seal` is the number of the seal that shows it."""

    code: str
    seal: int | None
    message: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, and what was wrong with it; `waiting` entries are not sealed yet."""

    seals: int
    entries: int
    newest: datetime | None
    waiting: int
    waiting_since: datetime | None
    problems: list[Problem]


def anchor(tx: Tx) -> Anchor:
    """The anchor of the chain as it is now; NotFound as `nothing_sealed`."""
    newest = audit_seal.find_newest(tx)
    if newest is None:
        raise NotFound(
            "nothing_sealed",
            "nothing of the audit is sealed yet: a worker does it every minute (`seal_every`), "
            "`keyturn run upkeep.seal_audit` at once",
        )
    entries: int = tx.scalar("SELECT CAST(sum(entries) AS bigint) FROM keyturn.audit_seals")
    return Anchor(
        seal=newest.number, hash=newest.hash.hex(), sealed_at=newest.sealed_at, entries=entries
    )


def verify(database: Database, kept: Anchor | None = None) -> Verified:
    """Recompute every seal, by one snapshot, and hold the chain against an anchor.

    It writes nothing and locks nothing, and takes a few seconds for a million entries.
    """
    with database.begin() as tx:
        tx.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        tx.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}")
        tx.execute("SET LOCAL jit = off")  # compiling these takes longer than running them
        problems: list[Problem] = []
        seals = entries = 0
        newest: Seal | None = None
        for row in _checked(tx):
            seal = Seal(**{name: row[name] for name in Seal.__dataclass_fields__})
            problems += [*_link(newest, seal, row), *_entries(seal, row)]
            seals, entries, newest = seals + 1, entries + row["found"], seal
        problems += [*_misplaced(tx), *_anchored(tx, kept, newest)]
        waiting = tx.row(_WAITING)
        assert waiting is not None
        sealed_at = newest.sealed_at if newest else None
        return Verified(seals, entries, sealed_at, waiting["count"], waiting["since"], problems)


def _checked(tx: Tx) -> Iterator[Any]:
    """Every seal by number, beside what there is now in its range."""
    after = 0
    while page := tx.rows(_PAGE, after=after, page=PAGE):
        yield from page
        after = page[-1]["number"]


def _link(previous: Seal | None, seal: Seal, row: Any) -> Iterator[Problem]:
    """Whether a seal follows from the one before, and is what its fields say."""
    expected = previous.number + 1 if previous else 1
    if seal.number != expected:
        last = seal.number - 1
        missing = f"seal {last} is" if last == expected else f"seals {expected} to {last} are"
        yield Problem("seal_missing", expected, f"{missing} missing")
        return
    begins = previous.to_transaction if previous and previous.from_id == seal.from_id else 0
    if not row["seal_matches"] or seal.from_transaction != begins:
        others = f"it or seal {previous.number} was" if previous else "it was"
        message = f"{_name(seal)} is not what was computed when it was made: {others} changed"
        yield Problem("seal_changed", seal.number, message)


def _entries(seal: Seal, row: Any) -> Iterator[Problem]:
    """Whether the entries in a seal's range are those that were sealed."""
    more = row["found"] - seal.entries
    if more:
        how, code = ("added", "entry_inserted") if more > 0 else ("removed", "entry_deleted")
        message = (
            f"{_name(seal)} has {row['found']} entries where {seal.entries} were sealed: at least "
            f"{abs(more)} {'was' if abs(more) == 1 else 'were'} {how}"
        )
        yield Problem(code, seal.number, message)
    elif not row["entries_match"]:
        message = (
            f"{_name(seal)} has as many entries as were sealed, but not the same: at least one was "
            "changed"
        )
        yield Problem("entry_changed", seal.number, message)


def _name(seal: Seal) -> str:
    return (
        f"seal {seal.number} of {seal.sealed_at:%Y-%m-%dT%H:%M:%SZ} (transactions "
        f"{seal.from_transaction} to {seal.to_transaction - 1}, entries {seal.first_id} to "
        f"{seal.last_id})"
    )


def _misplaced(tx: Tx) -> Iterator[Problem]:
    """Entries that no seal covers and none ever will: nothing of ours wrote them."""
    row = tx.row(_MISPLACED, shown=SHOWN)
    assert row is not None
    if row["count"]:
        message = (
            f"{row['count']} entries carry transaction ids that none can have had in its place, so "
            f"they were inserted or moved: {', '.join(map(str, row['ids']))}"
        )
        yield Problem("entry_misplaced", None, message)


def _anchored(tx: Tx, kept: Anchor | None, newest: Seal | None) -> Iterator[Problem]:
    """Whether the chain still has the seal that somebody kept."""
    if kept is None:
        return
    stored = tx.scalar("SELECT hash FROM keyturn.audit_seals WHERE number = :seal", seal=kept.seal)
    sealed = f"seal {kept.seal} of {kept.sealed_at:%Y-%m-%dT%H:%M:%SZ}"
    if newest is None or newest.number < kept.seal:
        last = f"the last seal is {newest.number}" if newest else "there is no seal at all"
        message = f"the anchor is of {sealed}, but {last}: the end of the audit was cut off"
        yield Problem("tail_truncated", kept.seal, message)
    elif stored is None or stored.hex() != kept.hash:
        message = (
            f"the anchor is of {sealed}, which has another hash now: entries up to it were cut off "
            "or changed, and sealed anew"
        )
        yield Problem("anchor_differs", kept.seal, message)


_PAGE = f"{CHECKED} WHERE s.number > :after ORDER BY s.number LIMIT :page"

# Each span of row ids, how far it is sealed, and whether anything may still wait there: in the
# newest one, and in the last one that was sealed.
_SPANS = f"""
    spans AS (
        SELECT from_id, lead(from_id) OVER (ORDER BY from_id) AS until_id,
               max(sealed_to) AS sealed_to, bool_or(open) AS open
        FROM (
            SELECT from_id, to_transaction AS sealed_to, number = max(number) OVER () AS open
            FROM keyturn.audit_seals
            UNION ALL
            SELECT from_id, 0, true FROM ({CURRENT}) current
            UNION ALL
            SELECT 0, 0, true WHERE NOT EXISTS (SELECT FROM keyturn.audit_seals)
        ) span GROUP BY from_id
    ), placed AS (
        SELECT e.id, e.at,
               e.transaction_id >= 0 AND e.transaction_id < coalesce(s.sealed_to, 0) AS sealed,
               s.open AND e.transaction_id >= s.sealed_to
                   AND (s.until_id IS NOT NULL OR e.transaction_id < {XMAX}) AS waits
        FROM keyturn.audit e
        LEFT JOIN spans s ON e.id >= s.from_id AND (s.until_id IS NULL OR e.id < s.until_id)
    )
"""
_MISPLACED = f"""
    WITH {_SPANS}, misplaced AS MATERIALIZED (
        SELECT id FROM placed WHERE NOT sealed AND waits IS NOT TRUE
    )
    SELECT (SELECT count(*) FROM misplaced) AS count,
           ARRAY(SELECT id FROM misplaced ORDER BY id LIMIT :shown) AS ids
"""
_WAITING = f"""
    WITH {_SPANS} SELECT count(*) AS count, min(at) AS since FROM placed WHERE waits AND NOT sealed
"""
