"""Where two sides meet: one account on a real PostgreSQL, brought to any state of its life."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import psycopg

import tasks
from models import inbox, roles, schedule_runs
from models.events import AccountEvent, Action
from models.hand_overs import Leased
from models.inbox import Received, Source
from models.invariants import Tolerance, check
from models.keyring import Keyring
from models.operator import Operator
from models.policy import Policy
from models.rotation_policy import DEFAULT, RotationPolicy
from models.rotation_times import parse_rotate
from models.rotations import Rotation
from models.sinks import Sink
from tests.model.real import EMPTY, Post, Shelf
from tests.world import ADA, ROLES, event

NOW, DAY, HOUR = timedelta(0), timedelta(days=1), timedelta(hours=1)
AFTER_A_LEASE: Final = timedelta(seconds=125)
FLOWS: Final = (
    "accounts.apply_events",
    "keys.settle",
    "keys.expire_due",
    "keys.delete_due",
    "rotations.advance",
    "keys.follow_compromises",
    "notices.plan",
    "outbox.deliver",
)
SHELF: Final = "shelf"
POLICIES: Final = {
    DEFAULT: RotationPolicy(),
    SHELF: RotationPolicy(sink=SHELF),
    "scheduled": RotationPolicy(rotate=parse_rotate("1/9")),
    "issuing": RotationPolicy(on_compromise="hold_and_issue"),
}
TOLERANCE: Final = Tolerance(
    in_flight=timedelta(seconds=20), settle=NOW, event=NOW, rotation=NOW, notice=NOW, message=NOW
)
"""Transactions overlap: what one began before the other's commit, it may commit after it."""


class Actor:
    """One process: a library, a worker, and the doorbell as the worker rings it."""

    def __init__(
        self,
        url: str,
        keyring: Keyring,
        policy: Policy,
        channels: dict[str, Post],
        sinks: Mapping[str, Sink],
    ) -> None:
        self.rung: list[str] = []
        self.operator = Operator(
            url, keyring=lambda: keyring, policy=policy, actor="op", on_commit=self._ring
        )
        self.database = self.operator.database
        self.runtime = tasks.Runtime(
            self.database, policy, keyring, channels, dict.fromkeys(FLOWS, NOW), sinks=sinks
        )

    def at(self, shift: timedelta) -> "Actor":
        """Its clock is off by this much from now on; NOW gives it the database's own back."""
        self.database.clock = (lambda: datetime.now(UTC) + shift) if shift else None
        if self.operator._verifier is not None:  # it keeps the clock that it was made with
            self.operator._verifier.close()
            self.operator._verifier = None
        return self

    def run(self, flow: str) -> int:
        return tasks.run(tasks.flows()[flow], self.runtime)

    def verify(self, text: str) -> bool:
        return self.operator.verify(text, record=False).valid

    def close(self) -> None:
        self.operator.close()

    def _ring(self, names: set[str]) -> None:
        self.rung += self.database.run(lambda tx: schedule_runs.mark_rung(tx, names))


@dataclass
class Stage:
    """What the sides find, and what they leave behind."""

    left: Actor
    right: Actor
    keeper: Actor
    watch: psycopg.Connection
    channels: dict[str, Post]
    shelf: Shelf
    key: UUID = field(default_factory=lambda: UUID(int=0))
    texts: dict[UUID, str] = field(default_factory=dict)
    rotation: Rotation | None = None
    flows: list[str] = field(default_factory=list)
    """More flows that have their turn before the quiet, in this order."""
    plan: str = ""
    leased: Leased | None = None
    """The hand-over that a worker took, of which nothing was heard since."""

    def reset(self) -> None:
        """Ada, and one key of hers that is thirty days old."""
        self.texts.clear()
        self.flows.clear()
        self.shelf.given.clear()
        self.rotation, self.plan, self.leased = None, "", None
        for actor in (self.left, self.right, self.keeper):
            actor.at(NOW).rung.clear()
        for channel in self.channels.values():
            channel.taken.clear()
        with self.keeper.database.begin() as tx:
            tx.execute(EMPTY)
            roles.sync(tx, ROLES)
        with self.ago(30 * DAY) as operator:
            operator.create_account(ADA, "member")
        self.key = self.create(30 * DAY, 90 * DAY)

    @contextmanager
    def ago(self, before: timedelta) -> Iterator[Operator]:
        """Do what was done so long ago."""
        self.keeper.at(-before)
        try:
            yield self.keeper.operator
        finally:
            self.keeper.at(NOW)

    def create(self, before: timedelta, life: timedelta) -> UUID:
        with self.ago(before) as operator:
            made = operator.create_api_key("k", ADA, "viewer", int(life.total_seconds()))
        self.texts[made.id] = made.text.reveal()
        return made.id

    def receive(self, *actions: Action, email: str = ADA, source: str = "okta") -> None:
        """Events that no worker has looked at yet."""
        for number, action in enumerate(actions):
            one = Received(f"d{number}", event(action, email), {}, b"")
            self.keeper.database.run(
                lambda tx, one=one: inbox.accept(tx, Source(source, source), [one])  # type: ignore[misc]
            )

    def report(self, key: UUID, source: str = "okta") -> None:
        """Somebody says that others know a key; no worker has looked at it yet."""
        digest = sha256(self.texts[key].encode()).hexdigest()
        said = AccountEvent(action=Action.KEY_LEAKED, key_digest=digest, raw_type="key.leaked")
        received = [Received("leak", said, {}, b"")]
        self.keeper.database.run(lambda tx: inbox.accept(tx, Source(source, source), received))

    def issued(self, before: timedelta) -> None:
        with self.ago(before) as operator:
            self.rotation = operator.rotate(self.key)

    def claimed(self, before: timedelta) -> None:
        self.issued(before)
        with self.ago(before - timedelta(minutes=1)) as operator:
            got = operator.claim(self.texts[self.key])
        self.texts[got.key_id] = got.secret.reveal()

    def used(self, before: timedelta) -> None:
        """Claimed, and used since; no flow has seen that yet."""
        self.claimed(before)
        assert self.rotation
        with self.ago(before - timedelta(minutes=2)) as operator:
            assert operator.verify(self.texts[self.rotation.new_key_id])
            operator.flush_uses()

    def draining(self, before: timedelta) -> None:
        self.used(before)
        self._advance(before - timedelta(minutes=3), "draining")

    def retired(self, before: timedelta) -> None:
        self.draining(before + 7 * DAY + HOUR)
        self._advance(before, "retired")

    def _advance(self, before: timedelta, state: str) -> None:
        with self.ago(before):
            self.keeper.run("rotations.advance")
        assert self.rotation
        assert self.keeper.operator.rotation(str(self.rotation.id)).state == state

    def quiet(self) -> list[str]:
        """Every flow has its turn once leases have run out; then the promises that are broken."""
        keeper = self.keeper.at(AFTER_A_LEASE)
        for flow in (*self.flows, *FLOWS):
            keeper.run(flow)
        found = check(keeper.database, keeper.runtime.policy, full=True, tolerance=TOLERANCE)
        broken = [f"{one.name}: {one.rows}" for one in found]
        known = keeper.operator.get_api_keys(include_expired=True)
        status = {key.id: key.status for key in known}
        for key, text in self.texts.items():
            if keeper.verify(text) != (status[key] == "active"):
                broken.append(f"verify: {key} is {status[key]}")
        return broken

    def close(self) -> None:
        for actor in (self.left, self.right, self.keeper):
            actor.close()


Side = Callable[[Stage, Actor], object]
