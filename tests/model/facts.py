"""What the model knows: plain facts about accounts, keys, events and rotations. Times are UTC."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
OPERATOR: Final = "operator"

OPEN: Final = ("issued", "draining")
LIVE: Final = (*OPEN, "retired")

NOBODYS: Final = -1

Name = tuple[str, str]
"""A format (`email`, `opaque`) and a value; an opaque one is its source's own."""


@dataclass
class Hold:
    """What stops an account or key; the row stays after lifting."""

    placed: datetime | None = None
    lifted: datetime | None = None
    confirm: bool = False
    confirmed: bool = False

    @property
    def stands(self) -> bool:
        return self.placed is not None and self.lifted is None


@dataclass
class Mark:
    """The last ordered event of one source that was applied to one account."""

    at: datetime
    sequence: int | None
    event: int


@dataclass(eq=False, kw_only=True)
class Target:
    """What can be held, per (source, kind)."""

    holds: dict[tuple[str, str], Hold] = field(default_factory=dict)

    @property
    def held(self) -> bool:
        return any(hold.stands for hold in self.holds.values())

    def held_as(self, kind: str) -> bool:
        return any(hold.stands for (_, k), hold in self.holds.items() if k == kind)

    def hold(self, source: str, kind: str, now: datetime) -> bool:
        """False where it stood."""
        hold = self.holds.setdefault((source, kind), Hold())
        if hold.stands:
            return False
        hold.placed, hold.lifted = now, None
        return True

    def lift(self, source: str, kind: str, now: datetime) -> bool:
        """False where none stood."""
        hold = self.holds.get((source, kind))
        if hold is None or not hold.stands:
            return False
        hold.lifted = now
        return True


@dataclass(eq=False)
class Account(Target):
    email: str
    names: dict[tuple[str, str, str], datetime] = field(default_factory=dict)
    """Format, issuer and value, and since when they name this account."""
    marks: dict[str, Mark] = field(default_factory=dict)
    keys: list["Key"] = field(default_factory=list)


@dataclass(eq=False)
class Key(Target):
    number: int
    account: Account
    created: datetime
    expires: datetime
    family: int
    allowed: str | None = None
    role: str = "viewer"
    deleted: datetime | None = None
    first_used: datetime | None = None
    last_used: datetime | None = None
    noted: datetime | None = None
    """When this process last wrote down a use."""
    known: bool = True
    """Whether anybody has its text."""

    @property
    def life(self) -> timedelta:
        return self.expires - self.created


@dataclass(frozen=True)
class Content:
    """What a producer says."""

    action: str
    names: tuple[Name, ...]
    at: datetime | None = None
    sequence: int | None = None
    event_id: str | None = None
    certainty: str = "transition"
    leaked: int | None = None
    """The key whose text others are said to have; NOBODYS for a text that is no key's."""


@dataclass(frozen=True)
class Message:
    """One delivery of a producer's content. `number` is the transport's own name for it."""

    source: str
    content: Content
    number: int


@dataclass(eq=False)
class Event:
    """An inbox row."""

    number: int
    source: str
    content: Content
    received: datetime
    state: str
    conflict: bool = False
    due: datetime | None = None
    fence: int = 0
    finished: datetime | None = None


@dataclass(eq=False)
class Rotation:
    number: int
    account: Account
    old: Key
    new: Key
    asked: str | None
    issued: datetime
    claim_until: datetime
    reason: str = "requested"
    contested: bool = False
    """Whether two have asked for the new key."""
    state: str = "issued"
    claimed: datetime | None = None
    secret: bool = True
    confirmed: datetime | None = None
    retire_at: datetime | None = None
    paused: datetime | None = None
    resumed: datetime | None = None
    undo_until: datetime | None = None
    undone: datetime | None = None
    reissued: "Rotation | None" = None
    """The one that was begun in its place."""
    blocked: str | None = None
    look_at: datetime | None = None
    """When what is blocked is looked at again."""

    @property
    def family_keys(self) -> list[Key]:
        return [key for key in self.account.keys if key.family == self.old.family]

    @property
    def latest(self) -> "Rotation":
        return self if self.reissued is None else self.reissued.latest

    @property
    def leaked(self) -> bool:
        """Whether it has nothing to wait for: its successor is in use, and others know the old key.
        What follows a leak ends it, unless something else made a worker look at it before.
        """
        return self.state == "draining" and self.old.held_as("compromised")

    @property
    def handed_over(self) -> bool:
        return self.claimed is not None or self.new.first_used is not None
