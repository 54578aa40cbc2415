"""The state machine: anything that can happen, in any order, to an installation and to the model.

After every step `verify` must answer for every key as the model does, whichever flows have run.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
)

from models.account_events import Claimed as ClaimedEvent
from models.errors import Refused
from tests.model.compared import EMAILS, FLOWS, OPAQUE, SOURCES, TICK, Index, pick
from tests.model.facts import DAY, HOUR, MINUTE, NOBODYS, Content, Message
from tests.model.new_keys import WithNewKeys
from tests.model.order import LEAKED, Claim
from tests.model.real import Crash

names = st.lists(
    st.one_of(
        st.sampled_from(EMAILS[:3]).map(lambda email: ("email", email)),
        st.sampled_from(OPAQUE).map(lambda value: ("opaque", value)),
    ),
    min_size=1,
    max_size=2,
    unique=True,
).map(tuple)
"""What an event calls its account, best name first."""


@st.composite
def contents(draw: st.DrawFn) -> tuple[int | None, Content]:
    """A producer's event, and its time in minutes from the present one (None: it gives none)."""
    cuts = ["deleted", "deleted", "compromised", *[LEAKED] * 3]
    action = draw(st.sampled_from(["disabled"] * 5 + ["enabled"] * 5 + cuts + ["none"]))
    minutes = draw(st.sampled_from([None, None, 0, 0, -1, -2, -6, -60, 1, 5, 6, 525_600]))
    content = Content(
        action=action,
        names=draw(names) if action != LEAKED else (),
        sequence=draw(st.one_of(st.none(), st.integers(0, 4))),
        event_id=draw(st.one_of(st.none(), st.sampled_from(["e1", "e2", "e3"]))),
        certainty=draw(st.sampled_from(["transition"] * 8 + ["state", "hint"])),
        leaked=draw(Index) if action == LEAKED else None,
    )
    return minutes, content


class Installation(WithNewKeys):
    """Commands, events, flows, crashes and time."""

    # Events.

    @rule(
        source=st.sampled_from([*SOURCES, SOURCES[0]]),
        several=st.lists(contents(), min_size=1, max_size=3),
        at_once=st.booleans(),
    )
    def receive(
        self, source: str, several: list[tuple[int | None, Content]], at_once: bool
    ) -> None:
        minute = self.model.now.replace(second=0, microsecond=0)
        for minutes, content in several:
            at = None if minutes is None else minute + minutes * MINUTE
            dated = Content(**{**vars(content), "at": at, "leaked": self._known(content.leaked)})
            self.messages.append(Message(source, dated, len(self.messages)))
        self._receive(self.messages[-len(several) :])
        if at_once:
            self.apply(1000)

    def _known(self, which: int | None) -> int | None:
        """A key whose text somebody has; now and then a text is nobody's."""
        if which is None:
            return None
        known = [key.number for key in self.model.keys if key.known]
        return [*known, NOBODYS][which % (len(known) + 1)]

    @precondition(lambda self: self.messages)
    @rule(which=Index)
    def receive_again(self, which: int) -> None:
        self._receive([pick(self.messages, which)])

    def _receive(self, messages: list[Message]) -> None:
        texts = {n: text for n, (_, text) in enumerate(self.texts) if text is not None}
        ids = self.real.receive(messages, texts)
        assert len(ids) == self.model.receive(messages)
        self.event_ids += ids

    @precondition(lambda self: self.model.inbox.due(self.model.now))
    @rule(batch=st.sampled_from([1, 2, 3, 1000]))
    def apply(self, batch: int) -> None:
        claimed, claims = self._take(batch)
        self.real.apply(claimed)
        self.model.apply(claims)

    @precondition(lambda self: self.taken or self.model.inbox.due(self.model.now))
    @rule(batch=st.sampled_from([1, 2, 1000]))
    def die_with_a_claim(self, batch: int) -> None:
        """A worker stops with events in its hands. It may yet wake up: the fence decides then."""
        if self.taken and not self.model.inbox.due(self.model.now):
            self._wake_up()
            return
        claimed, claims = self._take(batch)
        kept = [(one.event.number, one.fence, one.conflict) for one in claims]
        self.taken.append((claimed, kept))

    def _wake_up(self) -> None:
        claimed, kept = self.taken.pop(0)
        self.real.apply(claimed)
        by_number = {event.number: event for event in self.model.inbox.events}
        claims = [Claim(by_number[n], fence, c) for n, fence, c in kept if n in by_number]
        self.model.apply(claims)

    @precondition(lambda self: any(e.state == "parked" for e in self.model.inbox.events))
    @rule(which=Index, any_state=st.booleans())
    def replay(self, which: int, any_state: bool) -> None:
        events = self.model.inbox.events
        parked = [event for event in events if any_state or event.state == "parked"]
        event = pick(parked, which)
        done = self.real.requeue(event.source, self.event_ids[event.number])
        assert done == self.model.inbox.replay(event, self.model.now)

    @precondition(
        lambda self: any(h.confirm for a in self.model.accounts for h in a.holds.values())
    )
    @rule(source=st.sampled_from(SOURCES))
    def confirm_deletions(self, source: str) -> None:
        assert self.real.operator.confirm_deletions(source) == self.model.confirm_deletions(source)

    # Flows, crashes and time.

    @rule(flow=st.sampled_from([*FLOWS, "rotations.advance", "keys.settle"]))
    def run_a_flow(self, flow: str) -> None:
        self.run(flow)

    @rule(flow=st.sampled_from([*FLOWS, "", ""]), mode=st.sampled_from(["crash", "retry"]))
    def run_badly(self, flow: str, mode: str) -> None:
        """A flow dies with its lease, or messages are not taken."""
        if flow:
            self.real.die_in(flow)
            self.model.die_in(flow)
            return
        for channel in self.real.channels.values():
            channel.mode = mode
        with suppress(Crash):
            self.real.run("outbox.deliver")
        for channel in self.real.channels.values():
            channel.mode = "sent"

    @precondition(lambda self: self.texts)
    @rule(which=Index, after=st.integers(0, 12), data=st.data())
    def die_in_a_command(self, which: int, after: int, data: st.DataObject) -> None:
        """The process dies in the middle of a command: nothing of it may be there."""
        key = pick(self.model.keys, which)
        name = self.texts[key.number][0]
        operator = self.real.operator
        commands: dict[str, Callable[[], Any]] = {
            "create": lambda: operator.create_api_key("k", key.account.email, "viewer", 3600),
            "rotate": lambda: operator.rotate(name),
            "delete": lambda: operator.delete(name),
            "disable": lambda: operator.disable(name),
            "disable_account": lambda: operator.disable_account(key.account.email),
        }
        command = data.draw(st.sampled_from(sorted(commands)))
        try:
            with self.real.dying_after(after):
                commands[command]()
        except (Crash, Refused):
            return
        raise AssertionError(f"{command} did not die")

    @rule(
        by=st.sampled_from(
            [
                timedelta(seconds=1),
                MINUTE,
                3 * MINUTE,
                6 * MINUTE,
                HOUR,
                26 * HOUR,
                3 * DAY,
                8 * DAY,
            ]
        )
    )
    def later(self, by: timedelta) -> None:
        self.move_to(self.model.now + by)

    @rule(which=Index, off=st.sampled_from([-TICK, timedelta(0), TICK]))
    def later_at_a_deadline(self, which: int, off: timedelta) -> None:
        deadlines = self.model.deadlines()
        if deadlines:
            self.move_to(max(self.model.now, deadlines[which % len(deadlines)] + off))

    def _take(self, batch: int) -> tuple[list[ClaimedEvent], list[Claim]]:
        """Whichever due events a worker claims, in whichever order sources take turns."""
        claimed = self.real.claim_events(batch)
        numbers = {id_: number for number, id_ in enumerate(self.event_ids)}
        taken = {numbers[one.id] for one in claimed}
        due = {event.number for event in self.model.inbox.due(self.model.now)}
        assert taken <= due
        assert bool(taken) == bool(due)
        return claimed, self.model.claim_events(taken)
