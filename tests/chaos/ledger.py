"""What was asked for, kept apart from the system: published events, and what each must lead to.

Nothing here is read from Keyturn. `judge` compares the ledger with what Keyturn and the far sides
say in the end (`Evidence`).
"""

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.sinks import Found

LEAKED: Final = "key_leaked"
"""The action of an event that is about one key, and not about the account that has it."""
CLOSED: Final = 0o600


@dataclass(eq=False)
class Event:
    """One thing that a producer says, however often it is delivered. Times are of `time.time()`."""

    name: str
    """The producer's id of it, unique in the run; it stands in the message only where `named`."""
    account: str
    action: str
    sequence: int | None = None
    named: bool = True
    digest: str = ""
    """Of the key that leaked; of no other event."""
    published: float = 0.0
    """When the delivery that the broker acknowledged first began."""
    deliveries: list[str] = field(default_factory=list)
    """The broker's names of the acknowledged deliveries (RabbitMQ gives none)."""


@dataclass(eq=False)
class Account:
    """An account of the run, its events, and what must come of them."""

    email: str
    story: str
    events: list[Event] = field(default_factory=list)
    in_step: bool = False
    """Each event was published after the one before it had its effect: all must have one."""
    expires: bool = False
    """Its key ends within the run, and its owner is told."""
    texts: list[str] = field(default_factory=list)
    rotations: Sequence[str] | None = None
    """The states in which its rotations must end, and no others there; None where it is not about
    rotations, and each key ends as the account's events ask for."""
    end: dict[str, str] = field(default_factory=dict)
    """By the text of a key: the status it must end with, where that is not the account's."""
    files: dict[Path, str] = field(default_factory=dict)
    """What must be in which files, each closed to others."""
    mails: int = 1
    """How many mails of one subject its owner may get."""


@dataclass(frozen=True)
class Told:
    """An outgoing event that its receiver got. `at` is `time.time()`, by the broker's clock."""

    id: str
    type: str
    keys: tuple[str, ...]
    at: float
    redelivered: bool = False
    """The broker says that it hands it over again: the receiver's own connection was lost."""
    sealed: str = ""
    """The new key that it brings, as only its owner can read it."""
    since: float | None = None
    """When its queue was last seen empty: from then on it may have waited there for its receiver,
    who was cut off as well. None where `at` is the time of its sending."""


@dataclass(frozen=True)
class Posted:
    """A mail that its server got."""

    message_id: str
    to: str
    subject: str
    at: float


@dataclass(frozen=True)
class Row:
    """An inbox row: the event's name (or the account and action of one without), its number."""

    id: int
    name: str | None
    account: str
    action: str
    state: str


@dataclass(frozen=True)
class KeyFacts:
    """A key as Keyturn has it in the end."""

    id: str
    account: str
    status: str
    changes: tuple[str, ...]
    """The statuses of its audit entries from version 2 on."""


@dataclass
class Evidence:
    """What is there in the end."""

    inbox: Sequence[Row]
    keys: Sequence[KeyFacts]
    causes: Mapping[int, int]
    """How many holds were placed or lifted because of each inbox row."""
    rotations: Mapping[str, Sequence[str]]
    """The states of an account's rotations, by e-mail address."""
    told: Sequence[Told] = ()
    posted: Sequence[Posted] = ()
    valid: Mapping[str, bool] = field(default_factory=dict)
    """What `verify` says of each key's text."""
    files: Mapping[Path, Found | None] = field(default_factory=dict)
    """The files that the ledger names, as they are."""


@dataclass
class Findings:
    """What is wrong, by kind."""

    lost: list[str] = field(default_factory=list)
    flushed: list[str] = field(default_factory=list)
    """Events that FLUSHALL took from the stream before they were read: documented loss."""
    doubled: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def unmet(self) -> list[str]:
        """All that must not be."""
        marked = (("lost", self.lost), ("doubled", self.doubled), ("wrong", self.wrong))
        return [f"{kind}: {one}" for kind, found in marked for one in found]


class Ledger:
    """The book of one run. Threads may share it."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.flushed: set[str] = set()
        """Names of deliveries that were in the stream when it was flushed."""
        self.flushed_events: set[str] = set()
        """Names of the events in them; of those without a name, `action account`."""
        self.refused_mail: set[str] = set()
        self._lock = threading.Lock()

    def open(self, account: Account) -> Account:
        """Enter an account."""
        with self._lock:
            self.accounts[account.email] = account
        return account

    def enter(self, event: Event) -> Event:
        """Enter an event that is about to be published."""
        with self._lock:
            self.accounts[event.account].events.append(event)
        return event

    def published(self, event: Event, at: float, delivery: str) -> None:
        """A delivery of it was acknowledged."""
        with self._lock:
            event.published = event.published or at
            event.deliveries.append(delivery)

    def flush(self, deliveries: Iterable[str], events: Iterable[str]) -> None:
        """Enter what was in the stream when it was flushed."""
        with self._lock:
            self.flushed |= set(deliveries)
            self.flushed_events |= set(events)

    def may_be_flushed(self, event: Event) -> bool:
        """Whether each acknowledged delivery of it was in a stream that was flushed."""
        with self._lock:
            return said(event) in self.flushed_events and self.flushed.issuperset(event.deliveries)

    def events(self) -> list[Event]:
        """All events that were published."""
        with self._lock:
            accounts = list(self.accounts.values())
        return [event for account in accounts for event in account.events if event.published]

    def judge(self, evidence: Evidence) -> Findings:
        """Compare; nothing is wrong where `unmet` of the findings is empty."""
        findings = Findings()
        rows = _rows(evidence.inbox)
        for account in list(self.accounts.values()):
            self._judge_events(account, rows, evidence, findings)
        self._judge_keys(evidence, findings)
        _judge_outgoing(evidence, findings)
        self._judge_mail(evidence, findings)
        return findings

    def _judge_events(
        self,
        account: Account,
        rows: Mapping[str, Sequence[Row]],
        evidence: Evidence,
        findings: Findings,
    ) -> None:
        for event in account.events:
            if not event.published:
                continue
            found = rows.get(said(event), ())
            if not found:
                kind = findings.flushed if self.may_be_flushed(event) else findings.lost
                kind.append(f"{event.name}: {event.action} of {account.email} ({account.story})")
                continue
            if event.named and len(found) > 1:
                findings.doubled.append(f"{event.name}: {len(found)} inbox rows")
            for row in found:
                self._judge_row(account, row, evidence.causes.get(row.id, 0), findings)

    def _judge_row(self, account: Account, row: Row, effects: int, findings: Findings) -> None:
        name = f"{row.name or row.action} of {account.email} ({account.story})"
        if row.state not in ("done", "stale"):
            findings.wrong.append(f"{name} is {row.state}")
        if effects > 1:
            findings.doubled.append(f"{name} had {effects} effects")
        if account.in_step and not effects:
            findings.wrong.append(f"{name} ({row.state}) had no effect")

    def _judge_keys(self, evidence: Evidence, findings: Findings) -> None:
        arrived = {said_by(row) for row in evidence.inbox}
        by_account: dict[str, list[KeyFacts]] = defaultdict(list)
        for key in evidence.keys:
            by_account[key.account].append(key)
        for account in list(self.accounts.values()):
            _judge_files(account, evidence, findings)
            if account.rotations is not None:
                found = sorted(evidence.rotations.get(account.email, ()))
                if found != sorted(account.rotations):
                    name = f"{account.email} ({account.story})"
                    findings.wrong.append(f"{name}: rotations {found}, not {account.rotations}")
                self._judge_texts(account, evidence, findings, None)
                continue
            due = _status(account, arrived)
            for key in by_account[account.email]:
                if key.status != due:
                    name = f"{account.email} ({account.story}): key {key.id}"
                    findings.wrong.append(f"{name} is {key.status}, not {due}")
            self._judge_texts(account, evidence, findings, due)

    def _judge_texts(
        self, account: Account, evidence: Evidence, findings: Findings, due: str | None
    ) -> None:
        for text in account.texts:
            wanted = account.end.get(text, due)
            if wanted is None or text not in evidence.valid:
                continue
            if evidence.valid[text] != (wanted == "active"):
                says = "accepts" if evidence.valid[text] else "refuses"
                findings.wrong.append(
                    f"{account.email} ({account.story}): verify {says} a key that is {wanted}"
                )

    def _judge_mail(self, evidence: Evidence, findings: Findings) -> None:
        ids: dict[tuple[str, str], set[str]] = defaultdict(set)
        for mail in evidence.posted:
            ids[mail.to, mail.subject].add(mail.message_id)
        keys = Counter(key.account for key in evidence.keys)
        for (to, subject), found in ids.items():
            account = self.accounts.get(to)
            if account is None or (keys[to] > 1 and account.rotations is None):
                continue  # a key more than planned: its answer was lost, and it has its own mails
            if len(found) > account.mails:
                findings.doubled.append(f"{len(found)} mails {subject!r} to {to}")
        ended = {to for to, subject in ids if "has expired" in subject}
        for account in list(self.accounts.values()):
            if account.expires and account.email not in ended | self.refused_mail:
                findings.lost.append(f"the mail to {account.email} that its key has expired")


def said(event: Event) -> str:
    """How an event is found again: by its name, or by what it says where it was sent without."""
    return event.name if event.named else f"{event.action} {event.account}"


def said_by(row: Row) -> str:
    """The same of an inbox row."""
    return row.name or f"{row.action} {row.account}"


def _rows(inbox: Iterable[Row]) -> Mapping[str, Sequence[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in inbox:
        found[said_by(row)].append(row)
    return found


def _status(account: Account, arrived: set[str]) -> str:
    """The status that the keys of an account must end with, by the events that came in."""
    if account.expires:
        return "expired"
    events = [event for event in account.events if said(event) in arrived]
    if any(event.action in ("deleted", "compromised") for event in events):
        return "disabled"
    ordered = [event for event in events if event.action in ("disabled", "enabled")]
    if not ordered:
        return "active"
    last = max(ordered, key=lambda event: event.sequence or 0)
    return "disabled" if last.action == "disabled" else "active"


def _judge_files(account: Account, evidence: Evidence, findings: Findings) -> None:
    """A new key that was handed over is still there, and nobody else may read it."""
    for file, text in account.files.items():
        found, name = evidence.files.get(file), f"{account.email} ({account.story}): {file.name}"
        if found is None:
            findings.lost.append(f"{name} is not there")
        elif found.mode != CLOSED:
            findings.wrong.append(f"{name} has mode {found.mode:o}")
        elif found.text != text:
            findings.wrong.append(f"{name} has another key than the one that was handed over")


def _judge_outgoing(evidence: Evidence, findings: Findings) -> None:
    """Each change of a key's status that is told is told in one event, and the event arrives."""
    kinds = {"disabled": "key.disabled", "active": "key.enabled", "expired": "key.expired"}
    ids: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in evidence.told:
        for key in one.keys:
            ids[key, one.type].add(one.id)
    for (key, kind), sent in ids.items():
        if kind == "key.sealed" and len(sent) > 1:
            findings.doubled.append(f"{kind} of {key}: {len(sent)} events")
    for facts in evidence.keys:
        changes = Counter(kinds[change] for change in facts.changes if change in kinds)
        for kind in kinds.values():
            told, due = len(ids[facts.id, kind]), changes[kind]
            if told > due:
                findings.doubled.append(f"{kind} of {facts.id}: {told} events, {due} changes")
            if told < due:
                findings.lost.append(f"{kind} of {facts.id}: {told} events, {due} changes")
