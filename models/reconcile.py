"""A full export of an identity provider compared with the holds that its source placed here.

What differs becomes events of that source that report a `state` (rule 2.5), as of the export: so a
newer event of the source wins over it, one that comes late is stale, and other sources' holds stay
as they are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from . import account_events, accounts, audit, inbox
from .account_events import COLUMNS, claimed_of
from .accounts import Identity, Link
from .base import Database, Tx
from .errors import Refused
from .event_order import Dated, Mark, judge
from .events import AccountEvent, Action, Certainty, Subject
from .inbox import Received, Source
from .policy import Policy

RAW_TYPE = "reconcile"
PAGE = 2000
"""Accounts that one statement compares."""
BATCH = 500
"""Differences that one transaction applies."""

FEW = 10
"""Accounts that may be cut whatever share of all they are."""
SHARE = 0.1
"""The share of the compared accounts beyond which a cut has to be confirmed by its number."""


@dataclass(frozen=True)
class ExportRow:
    """One account of the export, by its names there, the best first; `active` or not."""

    line: int
    names: tuple[Identity, ...]
    active: bool


@dataclass(frozen=True)
class Difference:
    """One account whose hold by the source is not what the export says."""

    account_id: UUID
    email: str
    do: Literal["hold", "lift"]
    why: str
    name: Identity


@dataclass
class Comparison:
    """How an export and the accounts here differ. `left_alone` counts what nothing is done about.

    Of that: `newer`, where an event of the source came after the export; `doubtful`, where the
    account's name may have been somebody else's then; `otherwise_held`, where the export says
    active, and the source has a hold that is not lifted by that.
    """

    source: str
    at: datetime
    compared: int = 0
    differences: list[Difference] = field(default_factory=list)
    left_alone: Counter[str] = field(default_factory=Counter)
    unknown: list[int] = field(default_factory=list)
    """The lines that name no account here."""

    _seen: dict[UUID, bool] = field(default_factory=dict)

    @property
    def cuts(self) -> list[Difference]:
        """The accounts that would be held."""
        return [one for one in self.differences if one.do == "hold"]

    def add(self, tx: Tx, rows: Sequence[ExportRow], policy: Policy) -> None:
        """Compare some rows. Refused as `account_repeated` where two of them contradict."""
        links = accounts.resolve(tx, {name for row in rows for name in row.names})
        found: list[tuple[ExportRow, Identity, Link]] = []
        for row in rows:
            name = next((name for name in row.names if name in links), None)
            if name is None:
                self.unknown.append(row.line)
                continue
            link = links[name]
            if self._seen.setdefault(link.account_id, row.active) != row.active:
                raise Refused(
                    "account_repeated",
                    f"line {row.line} says otherwise of an account than a line before it: an "
                    "export has one line for each account",
                )
            found.append((row, name, link))
        here = _here(tx, self.source, [link.account_id for _, _, link in found])
        done: set[UUID] = set()
        for row, name, link in found:
            if link.account_id not in done:
                done.add(link.account_id)
                why = "active" if row.active else "disabled"
                self._compare(tx, here[link.account_id], name, link, why, policy)

    def add_absent(self, tx: Tx, policy: Policy, *, everyone: bool) -> None:
        """Compare the accounts that are in no row, as if a row said that they are disabled.

        Those that have an id of this source, or with `everyone` all. One that was made, or got
        that id, after the export is not absent from it.
        """
        last = UUID(int=0)
        while page := _expected(tx, self.source, self.at, last, everyone=everyone):
            last = page[-1]
            absent = [one for one in page if one not in self._seen]
            here = _here(tx, self.source, absent)
            for one in absent:
                name = "account", "", str(one)
                link = Link(one, "account", here[one].created_at)
                self._compare(tx, here[one], name, link, "absent", policy)

    def _compare(
        self, tx: Tx, here: "_Here", name: Identity, link: Link, why: str, policy: Policy
    ) -> None:
        self.compared += 1
        mark = here.marks.get("disabled", Mark())
        stopped = mark.standing or here.stands("deleted")
        if (why != "active") == stopped:
            return
        if why == "active" and not mark.standing:
            self.left_alone["otherwise_held"] += 1
            return
        action = Action.ENABLED if why == "active" else Action.DISABLED
        now = tx.now()
        event = Dated(0, action, self.at, now, None, conflict=False)
        verdict = judge(event, mark, link, policy.future_tolerance)
        if verdict.mark.standing != mark.standing:
            do: Literal["hold", "lift"] = "lift" if why == "active" else "hold"
            said = f"{why} there"
            self.differences.append(Difference(link.account_id, here.email, do, said, name))
        else:
            self.left_alone["newer" if verdict.state == "stale" else "doubtful"] += 1


def check_cuts(comparison: Comparison, policy: Policy, confirmed: int | None) -> None:
    """Refused as `too_many_cuts` where more accounts would be held than an export that is whole
    explains, unless exactly their number is `confirmed`."""
    cuts = len(comparison.cuts)
    share = cuts / max(comparison.compared, 1)
    if confirmed == cuts or cuts <= FEW:
        return
    if confirmed is None and cuts <= policy.burst_accounts and share <= SHARE:
        return
    raise Refused(
        "too_many_cuts",
        f"{cuts} of {comparison.compared} accounts would be cut, {share:.0%}: is the export whole? "
        f"If it is right, say so by --cut {cuts}",
    )


def apply(
    database: Database,
    comparison: Comparison,
    *,
    provider: str,
    actor: str,
    policy: Policy,
) -> Counter[str]:
    """Apply the differences in batches; counts them by what became of them (`done`, `stale`, ...).

    A batch that was applied before is not again: the same export once more changes nothing.
    """
    counts: Counter[str] = Counter()
    source = Source(comparison.source, provider)
    for start in range(0, len(comparison.differences), BATCH):
        part = comparison.differences[start : start + BATCH]
        counts += database.run(
            lambda tx, part=part: _apply(tx, source, comparison.at, part, actor, policy)  # type: ignore[misc]
        )
    return counts


def _apply(
    tx: Tx,
    source: Source,
    at: datetime,
    differences: Sequence[Difference],
    actor: str,
    policy: Policy,
) -> Counter[str]:
    events = [_event(one, at, actor) for one in differences]
    inbox.accept(tx, source, [Received(e.event_id or "", e, {}, b"") for e in events])
    rows = tx.rows(
        f"""
        SELECT {COLUMNS} FROM keyturn.inbox i
        WHERE state = 'received' AND source = :source AND event_id = ANY(:ids)
        ORDER BY id FOR UPDATE
        """,
        source=source.name,
        ids=[event.event_id for event in events],
    )
    counts = account_events.apply(tx, [claimed_of(row) for row in rows], policy)
    if rows:
        held = sum(row["action"] == Action.DISABLED for row in rows)
        said = f"{held} to hold, {len(rows) - held} to lift, as of {at.isoformat()}"
        audit.record(tx, actor, "accounts.reconciled", why=f"{source.name}: {said}")
    return counts


def _event(one: Difference, at: datetime, actor: str) -> AccountEvent:
    action = Action.DISABLED if one.do == "hold" else Action.ENABLED
    format, issuer, value = one.name
    return AccountEvent(
        action=action,
        certainty=Certainty.STATE,
        subject=Subject(format=format, issuer=issuer, value=value),
        occurred_at=at,
        event_id=f"{RAW_TYPE} {at.isoformat()} {action} {one.account_id}",
        raw_type=RAW_TYPE,
        reason=one.why,
        actor=actor,
    )


@dataclass(frozen=True)
class _Here:
    """How one account stands here, as far as one source is concerned."""

    email: str
    created_at: datetime
    marks: Mapping[str, Mark]

    def stands(self, kind: str) -> bool:
        return kind in self.marks and self.marks[kind].standing


def _here(tx: Tx, source: str, ids: Sequence[UUID]) -> dict[UUID, _Here]:
    found = tx.rows(
        "SELECT id, email, created_at FROM keyturn.accounts WHERE id = ANY(:ids)", ids=list(ids)
    )
    marks: dict[UUID, dict[str, Mark]] = {row["id"]: {} for row in found}
    rows = tx.rows(
        """
        SELECT account_id, kind, mark_at, mark_sequence, mark_event,
               placed_at IS NOT NULL AND lifted_at IS NULL AS standing
        FROM keyturn.holds WHERE account_id = ANY(:ids) AND source = :source
        """,
        ids=list(ids),
        source=source,
    )
    for row in rows:
        mark = Mark(row["standing"], row["mark_at"], row["mark_sequence"], row["mark_event"])
        marks[row["account_id"]][row["kind"]] = mark
    return {row["id"]: _Here(row["email"], row["created_at"], marks[row["id"]]) for row in found}


def _expected(tx: Tx, source: str, at: datetime, after: UUID, *, everyone: bool) -> Sequence[UUID]:
    found: Any = tx.execute(
        """
        SELECT a.id FROM keyturn.accounts a
        WHERE a.id > :after AND a.created_at <= :at AND (:everyone OR EXISTS (
            SELECT FROM keyturn.account_identities i
            WHERE i.account_id = a.id AND i.issuer = :source AND i.unlinked_at IS NULL
              AND i.linked_at <= :at))
        ORDER BY a.id LIMIT :page
        """,
        after=after,
        at=at,
        everyone=everyone,
        source=source,
        page=PAGE,
    )
    ids: Sequence[UUID] = found.scalars().all()
    return ids


def pages(rows: Iterator[ExportRow]) -> Iterator[list[ExportRow]]:
    """Rows by the page."""
    page: list[ExportRow] = []
    for row in rows:
        page.append(row)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
