"""The model's reading of rules 2.3 to 2.8: what becomes of events."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.model.facts import Account, Content, Event, Hold, Mark, Message

CUTS = {"disabled": "disabled", "deleted": "deleted", "compromised": "compromised"}
TRUSTED_SLACK = timedelta(minutes=5)
LEASE = timedelta(seconds=120)
LEAKED = "key_leaked"


@dataclass(frozen=True)
class Claim:
    """An event that a worker has taken, as it was then."""

    event: Event
    fence: int
    conflict: bool


@dataclass
class Inbox:
    """Everything that came in, and the accounts that it may name."""

    accounts: list[Account]
    burst_accounts: int
    burst_window: timedelta
    stop: Callable[[int, str], object]
    """What is done to a key of which a source says that others know it."""
    events: list[Event] = field(default_factory=list)
    known: dict[tuple[str, object], Content] = field(default_factory=dict)
    clashes: set[tuple[str, object, Content]] = field(default_factory=set)
    stored: int = 0

    def receive(self, messages: Sequence[Message], now: datetime) -> int:
        """Store what is new; returns how many rows that makes (rule 2.3)."""
        stored = 0
        for message in messages:
            key = (message.source, _identity(message))
            conflict = False
            if key in self.known:
                if self.known[key] == message.content or (*key, message.content) in self.clashes:
                    continue
                self.clashes.add((*key, message.content))
                conflict = True
            else:
                self.known[key] = message.content
            stored += 1
            received = now + stored * timedelta(microseconds=1)
            event = Event(
                self.stored, message.source, message.content, received, "received", conflict
            )
            self.stored += 1
            event.due = now
            if message.content.certainty == "hint":
                event.state = "parked"
            elif message.content.action == "none":
                event.state, event.finished = "ignored", now
            elif message.content.action not in (*CUTS, "enabled", LEAKED):
                event.state = "parked"
            self.events.append(event)
        return stored

    def due(self, now: datetime) -> list[Event]:
        """What a worker may take now."""
        return [e for e in self.events if e.state == "received" and e.due and e.due <= now]

    def claim(self, events: Sequence[Event], now: datetime) -> list[Claim]:
        """A worker takes events, for as long as its lease (rule 6.3)."""
        for event in events:
            event.fence += 1
            event.due = now + LEASE
        return [Claim(event, event.fence, event.conflict) for event in events]

    def apply(self, claims: Sequence[Claim], now: datetime) -> None:
        """One batch: it folds to one outcome per account, source and kind (rule 2.7)."""
        outcome: dict[tuple[int, str, str], tuple[Account, bool]] = {}
        for claim in claims:
            event = claim.event
            if claim.fence != event.fence or event.state not in ("received", "waiting_for_account"):
                continue
            if event not in self.events:
                continue  # it was removed since, being finished for long
            if event.content.leaked is not None:
                self.stop(event.content.leaked, event.source)
                event.state = "parked" if claim.conflict else "done"
                event.finished = None if claim.conflict else now
                continue
            found = self._account(event)
            if found is None:
                event.state = "waiting_for_account"
                continue
            account, linked, recyclable = found
            kind = CUTS.get(event.content.action, "disabled")
            target = (id(account), event.source, kind)
            before = account.holds.get((event.source, kind), Hold()).stands
            standing = outcome[target][1] if target in outcome else before
            state, stands = _judge(claim, account, standing, linked if recyclable else None)
            event.state = state
            event.finished = now if state in ("done", "stale") else None
            if stands is not None:
                outcome[target] = (account, stands)
        for (_, source, kind), (account, stands) in outcome.items():
            _set(account.holds.setdefault((source, kind), Hold()), stands, now)
        for source in {s for (_, s, _), (_, stands) in outcome.items() if stands}:
            self._watch_for_burst(source, now)

    def link(self, account: Account, names: Sequence[tuple[str, str, str]], now: datetime) -> None:
        """The account is called so from now on; what waited for it comes in (rule 2.6)."""
        account.names.update(dict.fromkeys(names, now))
        values = {value for _, _, value in names}
        waiting = [
            Claim(event, event.fence, event.conflict)
            for event in self.events
            if event.state == "waiting_for_account"
            and values & {value for _, value in event.content.names}
        ]
        self.apply(waiting, now)

    def replay(self, event: Event, now: datetime) -> bool:
        """An operator has an event looked at again."""
        if event.state not in ("parked", "waiting_for_account"):
            return False
        if event.content.certainty == "hint":
            return False
        event.state, event.conflict, event.due = "received", False, now
        return True

    def forget(self, now: datetime, kept: timedelta) -> None:
        """Finished rows leave after their time; what they were called stays known."""
        self.events = [e for e in self.events if not (e.finished and e.finished < now - kept)]

    def _account(self, event: Event) -> tuple[Account, datetime, bool] | None:
        for kind, value in event.content.names:
            name = (kind, event.source if kind == "opaque" else "", value)
            for account in self.accounts:
                if name in account.names:
                    return account, account.names[name], kind == "email"
        return None

    def _watch_for_burst(self, source: str, now: datetime) -> None:
        """A source that cuts many still cuts; what is irreversible waits (rule 2.8)."""
        recent = [
            (account, kind, hold)
            for account in self.accounts
            for (s, kind), hold in account.holds.items()
            if s == source and hold.placed and hold.placed > now - self.burst_window
        ]
        if len({account.email for account, _, _ in recent}) > self.burst_accounts:
            for _, kind, hold in recent:
                hold.confirm |= kind == "deleted" and not hold.confirmed


def _identity(message: Message) -> object:
    content = message.content
    if content.event_id is not None:
        return "id", content.event_id
    if content.at is not None:
        return "content", content
    return "delivery", message.number


def _set(hold: Hold, stands: bool, now: datetime) -> None:
    if stands and not hold.stands:
        hold.placed, hold.lifted, hold.confirmed = now, None, False
    elif not stands and hold.stands:
        hold.lifted = now


def _judge(
    claim: Claim, account: Account, standing: bool, linked: datetime | None
) -> tuple[str, bool | None]:
    """The event's state, and whether its hold stands then (None: nothing changes)."""
    event, content = claim.event, claim.event.content
    cuts = content.action in CUTS
    at = content.at or event.received
    if at > event.received + TRUSTED_SLACK:
        if not cuts:
            return "parked", None
        at = event.received
    doubt = claim.conflict or (linked is not None and at < linked)
    if content.action in ("disabled", "enabled"):
        mark = account.marks.get(event.source)
        place = _place(event, at, mark, standing)
        if place == "older":
            return ("parked", True) if claim.conflict and cuts else ("stale", None)
        doubt |= place == "restarted"
        if cuts or not doubt:
            sequence = content.sequence
            if place == "tie" and mark is not None and mark.sequence is not None:
                sequence = mark.sequence
            account.marks[event.source] = Mark(at, sequence, event.number)
    if doubt:
        return "parked", (True if cuts else None)
    return "done", cuts


def _place(event: Event, at: datetime, mark: Mark | None, standing: bool) -> str:
    """Rule 2.4: `newer`, `older`, `tie`, or `restarted` where the producer counts anew."""
    if mark is None:
        return "newer"
    content = event.content
    if content.sequence is not None and mark.sequence is not None:
        difference = content.sequence - mark.sequence
        if difference < 0:
            return "restarted" if at > mark.at + TRUSTED_SLACK else "older"
    else:
        difference = (at > mark.at) - (at < mark.at)
        if difference == 0 and content.at is None:
            difference = event.number - mark.event
    if difference > 0:
        return "newer"
    if difference < 0:
        return "older"
    return "tie" if content.action == "disabled" or not standing else "older"
