"""What the chapters of the demo work with: the stack, the product, the producers, the keys."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from .asking import YES, Product
from .cast import IRIS, Person
from .producers import Producers
from .stack import Stack
from .timeline import Timeline, wait
from .watch import Watch

_LOOK_EVERY: Final = 0.3  # seconds between two commands that look at the same thing
_TOGETHER: Final = 4  # commands at a time, where many are given
_ALL: Final = "10000"

Document = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """A key as `keyturn keys create` has shown it."""

    id: str
    text: str = field(repr=False)
    expires_at: datetime


class Stage:
    """The verbs of the chapters. Each that checks raises CheckFailed where it is not so."""

    def __init__(
        self,
        stack: Stack,
        product: Product,
        watch: Watch,
        producers: Producers,
        timeline: Timeline,
    ) -> None:
        self.stack = stack
        self.product = product
        self.watch = watch
        self.producers = producers
        self.keys: dict[Person, Key] = {}
        self.chapter = timeline.chapter
        self.fact = timeline.check

    # --- what operators do

    def create_account(self, person: Person) -> Document:
        """`keyturn accounts create`, with the person's id at the provider."""
        identity = ("--identity", person.identity) if person.identity else ()
        answer: Document = self.stack.keyturn(
            "accounts", "create", person.email, "--role", "member", *identity
        )
        return answer

    def create_key(self, person: Person) -> None:
        """`keyturn keys create`: for 30 days, or for one minute if it is Iris's."""
        life = ("1", "minute") if person is IRIS else ("30", "day")
        answer = self.stack.keyturn(*self.wanted_key(person, *life))
        self.keys[person] = Key(
            answer["id"], answer["text"], datetime.fromisoformat(answer["expires_at"])
        )

    def wanted_key(self, person: Person, validity: str, unit: str) -> tuple[str, ...]:
        """The arguments of `keyturn` that create a key."""
        owner = ("--user", person.email, "--role", "member")
        name = f"key of {person.name}"
        return ("keys", "create", name, *owner, "--validity", validity, "--time-unit", unit)

    def for_each(self, people: Sequence[Person], verb: Callable[[Person], object]) -> None:
        """Do the same for each, some at a time, the first ones first."""
        pool = ThreadPoolExecutor(_TOGETHER)
        try:
            list(pool.map(verb, people))
        finally:
            pool.shutdown(cancel_futures=True)  # after a Ctrl-C: nothing more

    # --- what is asked of the product's verify

    def until(
        self, person: Person, expected: str, what: str, *, since: float | None = None
    ) -> None:
        """Check that verify comes to say this of the person's key; tells how long it took."""
        self.until_text(self.keys[person].text, expected, what, since=since)

    def until_text(
        self, text: str, expected: str, what: str, *, since: float | None = None
    ) -> None:
        """The same of a key by its text. `since` is the monotonic clock's."""
        started = time.monotonic() if since is None else since
        answer = wait(lambda: self.product.verify(text), lambda one: one == expected, every=0.005)
        took = time.monotonic() - started
        self.fact(what, expected, answer, took=took, say=said(answer))

    def says(self, person: Person, expected: str, what: str) -> None:
        """Check that verify says this of the person's key now."""
        answer = self.product.verify(self.keys[person].text)
        self.fact(what, expected, answer, say=said(answer))

    def command_says(self, person: Person, expected: str, what: str) -> None:
        """Check that `keyturn keys verify` says the same, by its answer and its exit code."""
        code = 0 if expected == YES else 3
        text = self.keys[person].text
        answer = self.stack.keyturn("keys", "verify", stdin=text, exit_code=code)
        seen = YES if answer["valid"] else answer["reason"]
        self.fact(what, expected, seen, say=f"{said(seen)}; exit code {code}")

    # --- what became of events

    def events(self, *arguments: str) -> list[Document]:
        """`keyturn events list`."""
        found: list[Document] = self.stack.keyturn("events", "list", "--limit", _ALL, *arguments)
        return found

    def becomes(self, event_id: str, state: str, what: str) -> None:
        """Check that the event with this id of its producer comes to be in this state."""

        def ask() -> list[str]:
            found = self.events()
            return [one["state"] for one in found if one["event_id"] == event_id]

        states = wait(ask, lambda found: found == [state], every=_LOOK_EVERY)
        self.fact(what, [state], states, say=f"events list: {state}")

    def listed(self, state: str, what: str, *, reason: str) -> None:
        """Check that there comes to be one event in this state, for a reason that begins so."""
        found = wait(lambda: self.events("--state", state), bool, every=_LOOK_EVERY)
        reasons = [one["reason"].partition(":")[0] for one in found]
        self.fact(what, [reason], reasons, say=f"events list: {state}, {reason}")


def said(answer: str) -> str:
    """An answer of verify, as the timeline shows it."""
    return f"verify: {answer}" if answer == YES else f"verify: no, {answer}"
