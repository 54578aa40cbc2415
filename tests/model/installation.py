"""A whole installation as the rules have it: every command and flow, in plain Python.

Written from the rules and not from the code. A command that would be refused raises `No` and has
changed nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tests.model import handover
from tests.model.compromise import ISSUING, Compromises
from tests.model.facts import (
    DAY,
    LIVE,
    NOBODYS,
    OPEN,
    Account,
    Hold,
    Key,
    Message,
    Rotation,
)
from tests.model.handover import No
from tests.model.order import LEASE, Claim, Inbox
from tests.model.plans import Plans

DELETION_DELAY, KEPT = 7 * DAY, 30 * DAY
USE_INTERVAL = timedelta(minutes=1)
EXCLUSIVE = (
    "keys.delete_due",
    "keys.follow_compromises",
    "notices.plan",
    "rotations.advance",
    "rotations.start_due",
    "upkeep.retention",
    "upkeep.check_invariants",
)
"""Flows that run once at a time: a dead one keeps them from running for a lease."""


@dataclass
class Model:
    """The present truth. `now` is the one instant of whatever is done next."""

    now: datetime
    burst_accounts: int
    burst_window: timedelta
    accounts: list[Account] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)
    rotations: list[Rotation] = field(default_factory=list)
    leases: dict[str, datetime] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.inbox = Inbox(self.accounts, self.burst_accounts, self.burst_window, self._leaked)
        self.compromises = Compromises(self)
        self.plans = Plans(self)

    # What people and products do.

    def create_account(self, email: str, names: Sequence[tuple[str, str, str]]) -> Account:
        taken = {name for account in self.accounts for name in account.names}
        if any(account.email == email for account in self.accounts) or taken & set(names):
            raise No("taken")
        account = Account(email)
        self.accounts.append(account)
        self.inbox.link(account, [("email", "", email), *names], self.now)
        return account

    def link(self, account: Account, name: tuple[str, str, str]) -> None:
        if any(name in other.names for other in self.accounts):
            raise No("taken")
        self.inbox.link(account, [name], self.now)

    def create_key(self, email: str, life: timedelta, allowed: str | None, role: str) -> Key:
        account = next((one for one in self.accounts if one.email == email), None)
        if account is None or account.held:
            raise No("unknown or held")
        return self._issue(account, life, allowed, role, family=None)

    def answer(self, key: Key, ip: str | None = None) -> str | None:
        """Why `verify` refuses the key, or None where it works: the one predicate."""
        if key.deleted:
            return "deleted"
        if self.now >= key.expires:
            return "expired"
        if key.account.held:
            return "account_held"
        if key.held:
            return "retired" if key.held_as("rotated") else "key_held"
        return None if key.allowed in (None, ip) else "ip_not_allowed"

    def works(self, key: Key) -> bool:
        return self.answer(key, key.allowed) is None

    def status(self, key: Key) -> str:
        """What `status` says once everything is settled."""
        answer = self.answer(key, key.allowed)
        if answer == "account_held" and key.held_as("rotated"):
            return "retired"
        return {None: "active", "account_held": "disabled", "key_held": "disabled"}.get(
            answer, answer or ""
        )

    def use(self, key: Key, ip: str | None) -> str | None:
        """A request of the product with this key; a use is written down at most once a minute."""
        refused = self.answer(key, ip)
        if refused is None and (key.noted is None or self.now - key.noted >= USE_INTERVAL):
            key.noted = self.now
            self.report(key, self.now)
        return refused

    def report(self, key: Key, at: datetime) -> None:
        """A use that a gateway has counted."""
        key.first_used = min(key.first_used or at, at)
        key.last_used = max(key.last_used or at, at)

    def delete(self, key: Key) -> bool:
        if key.deleted:
            return False
        key.deleted = self.now
        return True

    def rotate(
        self, key: Key, asked: str | None, reason: str = "requested"
    ) -> tuple[Rotation, bool]:
        """The rotation, and whether it is a new one."""
        known = self._known(key, asked)
        if known is not None:
            return known, False
        if not self.works(key) or key.life < handover.MIN_LIFE:
            raise No("not to be rotated")
        self.end_undo(key)
        return self.succeed(key, asked, reason), True

    def _known(self, key: Key, asked: str | None) -> Rotation | None:
        """The rotation that a request is answered with, if there is one."""
        for known in self.rotations:
            if asked is not None and known.asked == asked and known.account is key.account:
                if known.old is not key:
                    raise No("asked for another key")
                return known.latest
        for known in self.of_family(key):
            if known.state in OPEN:
                handover.look(known, self.now, works=self.works, delete=self.delete)
                if known.state in OPEN:
                    return known
        for known in reversed(self.of_family(key)):
            if known.old is key and known.state in ("retired", "completed") and not key.deleted:
                return known
        return None

    def end_undo(self, key: Key) -> None:
        """Rule 5.6: two predecessors that might come back would be one too many."""
        for before in self.of_family(key):
            if before.new is key and before.state == "retired":
                handover.end(before, "completed")
                self.delete(before.old)

    def of_family(self, key: Key) -> list[Rotation]:
        return [one for one in self.rotations if one.old.family == key.family]

    def succeed(self, key: Key, asked: str | None, reason: str = "requested") -> Rotation:
        """The key has a successor from now on."""
        new = self._issue(key.account, key.life, key.allowed, key.role, family=key.family)
        new.known = False
        until = handover.claim_until(self.now, key, new)
        rotation = Rotation(
            len(self.rotations),
            key.account,
            key,
            new,
            asked,
            issued=self.now,
            claim_until=until,
            reason=reason,
        )
        self.rotations.append(rotation)
        return rotation

    def claim(self, key: Key) -> Rotation:
        """The holder of the old key fetches the new one."""
        found = [rotation for rotation in self.rotations if rotation.old is key]
        if not found or not handover.claimable(found[-1], self.now):
            raise No("nothing to claim")
        found[-1].claimed, found[-1].secret = self.now, False
        found[-1].new.known = True
        return found[-1]

    def confirm(self, rotation: Rotation) -> None:
        handover.confirm(rotation, self.now, works=self.works, delete=self.delete)

    def cancel(self, rotation: Rotation) -> None:
        handover.cancel(rotation, self.now, works=self.works, delete=self.delete)

    def undo(self, rotation: Rotation) -> None:
        handover.undo(rotation, self.now, works=self.works, delete=self.delete)

    def retry(self, rotation: Rotation) -> None:
        handover.retry(rotation, self.now, works=self.works, delete=self.delete)

    def reissue(self, rotation: Rotation) -> tuple[Rotation, bool]:
        """The rotation in the place of this one, and whether it is a new one."""
        if rotation.reissued is not None:
            return rotation.latest, False
        handover.withdraw(rotation, self.now, works=self.works, delete=self.delete)
        rotation.reissued = self.succeed(rotation.old, None, rotation.reason)
        return rotation.reissued, True

    def confirm_deletions(self, source: str) -> int:
        """An operator has looked at a source's burst."""
        waiting = self.unconfirmed(source)
        for hold in waiting:
            hold.confirm, hold.confirmed = False, True
        return len(waiting)

    def unconfirmed(self, source: str) -> list[Hold]:
        """Deletions that an operator should look at first."""
        return [
            hold
            for account in self.accounts
            for (s, _), hold in account.holds.items()
            if s == source and hold.confirm
        ]

    def _leaked(self, number: int, source: str) -> None:
        """A source says that others know a key; the policy of its role says what follows."""
        if number != NOBODYS and not self.keys[number].deleted:
            key = self.keys[number]
            self.compromises.stop(key, source, issue=key.role == ISSUING)

    # What happens by itself, each when a worker gets round to it.

    def receive(self, messages: Sequence[Message]) -> int:
        return self.inbox.receive(messages, self.now)

    def claim_events(self, numbers: Iterable[int]) -> list[Claim]:
        wanted = set(numbers)
        return self.inbox.claim([e for e in self.inbox.events if e.number in wanted], self.now)

    def apply(self, claims: Sequence[Claim]) -> None:
        self.inbox.apply(claims, self.now)

    def run(self, flow: str) -> None:
        """A flow runs once, to its end; or not, while a dead run of it has the lease."""
        if flow in EXCLUSIVE and self.leases.get(flow, self.now) > self.now:
            return
        self.leases.pop(flow, None)
        if flow in self._flows():
            self._flows()[flow]()

    def die_in(self, flow: str) -> None:
        """A worker takes the lease of a flow and is never heard of again."""
        if self.leases.get(flow, self.now) <= self.now:
            self.leases[flow] = self.now + LEASE

    def look(self, rotation: Rotation) -> None:
        """Every step of a rotation that is due is taken now."""
        handover.look(rotation, self.now, works=self.works, delete=self.delete)

    def catch_up(self, rotation: Rotation) -> None:
        handover.catch_up(rotation, self.now, works=self.works, delete=self.delete)

    def deadlines(self) -> list[datetime]:
        """The moments at which something becomes due by time alone."""
        times = [key.expires for key in self.keys]
        times += [time for one in self.rotations for time in handover.next_deadlines(one)]
        for account in self.accounts:
            for (_, kind), hold in account.holds.items():
                if kind == "deleted" and hold.stands and hold.placed:
                    times.append(hold.placed + DELETION_DELAY)
        return sorted({time for time in times if time > self.now})

    def _flows(self) -> dict[str, Callable[[], None]]:
        return {
            "accounts.apply_events": self._apply_due,
            "rotations.advance": self._advance,
            "keys.follow_compromises": self.compromises.follow_all,
            "operations.advance": self.plans.advance,
            "keys.delete_due": self._delete_due,
            "upkeep.retention": self._forget,
        }

    def _forget(self) -> None:
        self.inbox.forget(self.now, KEPT)
        self.plans.forget()

    def _apply_due(self) -> None:
        self.apply(self.inbox.claim(self.inbox.due(self.now), self.now))

    def _advance(self) -> None:
        for rotation in self.rotations:
            if rotation.state in LIVE and not rotation.leaked:
                self.catch_up(rotation)

    def _delete_due(self) -> None:
        for account in self.accounts:
            if any(self._deletes(kind, hold) for (_, kind), hold in account.holds.items()):
                for key in account.keys:
                    self.delete(key)

    def _deletes(self, kind: str, hold: Hold) -> bool:
        """Rule: deletion follows 7 days after the hold, if it still stands and needs no look."""
        if kind != "deleted" or not hold.stands or hold.confirm or not hold.placed:
            return False
        return hold.placed <= self.now - DELETION_DELAY

    def _issue(
        self,
        account: Account,
        life: timedelta,
        allowed: str | None,
        role: str,
        *,
        family: int | None,
    ) -> Key:
        number = len(self.keys)
        key = Key(
            number,
            account,
            self.now,
            self.now + life,
            number if family is None else family,
            allowed,
            role,
        )
        self.keys.append(key)
        account.keys.append(key)
        return key
