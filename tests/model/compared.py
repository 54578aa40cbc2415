"""Two installations side by side, the real one and the model, and what must agree."""

import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
)

from models.account_events import Claimed as ClaimedEvent
from models.errors import Refused
from models.recording import Use
from tests.model.facts import DAY, HOUR, LIVE, MINUTE, Key, Message, Rotation
from tests.model.handover import No
from tests.model.installation import Model
from tests.model.order import LEASE
from tests.model.real import Real
from tests.model.schedule import may_start

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
TICK = timedelta(milliseconds=1)
BURST_ACCOUNTS, BURST_WINDOW = 2, 10 * MINUTE

EMAILS = [f"user{number}@example.com" for number in range(4)]
SOURCES = ["okta", "keycloak"]
OPAQUE = ["00u1", "00u2"]
IPS = ["192.0.2.7", "192.0.2.8"]
FLOWS = [
    "accounts.apply_events",
    "keys.settle",
    "keys.expire_due",
    "keys.delete_due",
    "keys.follow_compromises",
    "rotations.advance",
    "rotations.start_due",
    "operations.advance",
    "notices.plan",
    "outbox.deliver",
    "upkeep.retention",
    "upkeep.seal_audit",
]

SCHEDULE = "rotations.start_due"

Index = st.integers(0, 30)
"""Which one of what there is; counted round."""
Lives = st.sampled_from([90 * DAY] * 4 + [30 * DAY, 2 * DAY, HOUR, 30 * MINUTE, MINUTE])


class Compared(RuleBasedStateMachine):
    """The real installation and the model; the same is done to both."""

    real: ClassVar[Real]

    def __init__(self) -> None:
        super().__init__()
        self.model = Model(START, BURST_ACCOUNTS, BURST_WINDOW)
        self.real.reset(START)
        self.texts: list[tuple[UUID, str | None]] = []
        self.rotation_ids: list[UUID] = []
        self.event_ids: list[int] = []
        self.messages: list[Message] = []
        self.taken: list[tuple[list[ClaimedEvent], list[tuple[int, int, bool]]]] = []
        self.unreported: list[tuple[int, Use]] = []

    def quiesce(self) -> None:
        """Everything gets its turn: then all that is written down is what the model says."""
        self.move_to(self.model.now + LEASE + timedelta(seconds=1))
        for flow in FLOWS:
            self.run(flow)
        self.events_are_as_in_the_model()
        self.rotations_are_as_in_the_model()
        statuses = self.real.statuses()
        assert [statuses[name] for name, _ in self.texts] == [
            self.model.status(key) for key in self.model.keys
        ]
        status = self.real.operator.status()
        assert (status.unsettled_accounts, status.keys_past_end) == (0, 0)
        assert self.real.broken() == []

    def run(self, flow: str) -> None:
        if flow == SCHEDULE:
            self._start_due()
            return
        self.real.run(flow)
        self.model.run(flow)
        self._look_alike([one for one in self.model.rotations if one.leaked])
        self.adopt()

    def _look_alike(self, rotations: Sequence[Rotation]) -> None:
        """Where a worker had a look at a rotation that it might have left for later, so has the
        model."""
        real = self.real.rotations() if rotations else {}
        for rotation in rotations:
            row = real[self.rotation_ids[rotation.number]]
            if _row(rotation) != {name: row[name] for name in _row(rotation)}:
                self.model.look(rotation)

    def _start_due(self) -> None:
        """What the schedule starts is its own affair, as long as it may: the model follows.

        Before it refuses a key that is in rotation it has a look at that rotation: so that is done
        first, in both.
        """
        self.run("rotations.advance")
        if self.model.leases.get("rotations.advance", self.model.now) > self.model.now:
            return
        self.real.run(SCHEDULE)
        self._look_alike([one for one in self.model.rotations if one.look_at is not None])
        for row in self._unknown():
            key = self._key(row["old_key_id"])
            assert may_start(self.model, key)
            assert row["reason"] == "scheduled"
            assert self.model.rotate(key, None, "scheduled")[1]
        self.adopt()

    def adopt(self) -> None:
        """Learn the ids of what was issued by itself just now: the same in both."""
        if len(self.model.rotations) == len(self.rotation_ids):
            return  # whether Keyturn has more is seen after the step
        rows = self._unknown()
        for rotation in self.model.rotations[len(self.rotation_ids) :]:
            row = self._alike(rotation, rows)
            rows.remove(row)
            assert row["reason"] == rotation.reason
            self.rotation_ids.append(row["id"])
            assert rotation.new.number == len(self.texts)
            self.texts.append((row["new_key_id"], None))
            self.tick()
        assert not rows

    def _alike(self, rotation: Rotation, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        """One flow may issue a key's successor and withdraw it for another."""
        old = self.texts[rotation.old.number][0]
        of_key = [row for row in rows if row["old_key_id"] == old]
        assert of_key, f"the model begins a rotation of {old}"
        return next((row for row in of_key if row["state"] == rotation.state), of_key[0])

    def _unknown(self) -> list[Mapping[str, Any]]:
        known = set(self.rotation_ids)
        return [row for id_, row in self.real.rotations().items() if id_ not in known]

    def _key(self, id_: UUID) -> Key:
        return next(key for key in self.model.keys if self.texts[key.number][0] == id_)

    # What always holds.

    @invariant()
    def verify_answers_as_the_model(self) -> None:
        for key in self.model.keys:
            text = self.texts[key.number][1]
            if text is not None:
                ip = key.allowed
                verdict = self.real.operator.verify(text, ip, record=False)
                assert (verdict.reason, key.number) == (self.model.answer(key, ip), key.number)
                assert verdict.valid == (verdict.reason is None)

    @invariant()
    def events_are_as_in_the_model(self) -> None:
        states = self.real.event_states()
        model = {self.event_ids[e.number]: e.state for e in self.model.inbox.events}
        differ = {n: (states.get(n), model.get(n)) for n in states.keys() | model.keys()}
        assert states == model, {n: pair for n, pair in differ.items() if pair[0] != pair[1]}

    @invariant()
    def rotations_are_as_in_the_model(self) -> None:
        real = self.real.rotations()
        assert len(real) == len(self.model.rotations)
        for rotation in self.model.rotations:
            row = real[self.rotation_ids[rotation.number]]
            assert _row(rotation) == {name: row[name] for name in _row(rotation)}

    def _both(self, real: Callable[[], Any], model: Callable[[], Any]) -> tuple[Any, Any] | None:
        """Do it in both; both succeed, or both refuse and have changed nothing."""
        before = copy.deepcopy(self.model)
        try:
            modelled, no = model(), ""
        except No as refusal:
            modelled, no = None, str(refusal)
            self.model = before
        try:
            done, code = real(), ""
        except Refused as refusal:
            done, code = None, refusal.code
        assert bool(no) == bool(code), f"the model says {no or 'yes'!r}, Keyturn {code or 'yes'!r}"
        return None if no else (done, modelled)

    def _text(self, key: Key) -> str:
        text = self.texts[key.number][1]
        assert text is not None
        return text

    def tick(self) -> None:
        """Two of a kind are never made at one instant: their order is their time."""
        self.move_to(self.model.now + TICK)

    def move_to(self, moment: datetime) -> None:
        self.model.now = self.real.now = moment

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:  # otherwise there is a failure to be shown
            self.quiesce()


def pick(some: list[Any], which: int) -> Any:
    return some[which % len(some)]


def _row(rotation: Rotation) -> dict[str, object]:
    live = rotation.state in LIVE
    row: dict[str, object] = {
        "state": rotation.state,
        "secret": rotation.secret,
        "claimed_at": rotation.claimed,
        "confirmed_at": rotation.confirmed,
    }
    if live:
        row |= {
            "paused_at": rotation.paused,
            "retire_at": rotation.retire_at,
            "undo_until": rotation.undo_until,
            "blocked_reason": rotation.blocked,
        }
    return row
