"""The load: stories of accounts, each with an account of its own, drawn by a seed."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Final, TypeVar

from models import TimeUnit
from models.errors import Refused
from models.operator import Operator
from tests.chaos.delivery import Far
from tests.chaos.guard import Guard
from tests.chaos.ledger import LEAKED, Account, Event, Ledger
from tests.chaos.sinks import Sinks

T = TypeVar("T")

LONGEST_WAIT: Final = 120.0
"""Seconds after which a story gives up waiting; what is wrong shows in the end."""
LOOK_EVERY: Final = 0.01
SHORT_LIFE: Final = 60
"""Seconds: the shortest validity that there is."""


@dataclass(frozen=True)
class Story:
    """What may happen: how often beside the others, and how long before the load's end at least."""

    tell: Callable[["Load", random.Random], None]
    weight: int = 1
    reserve: float = 0.0

    @property
    def name(self) -> str:
        return self.tell.__name__


class Load:
    """Tells stories until it is stopped. What it meets, it enters in the ledger."""

    def __init__(
        self, operator: Operator, far: Far, ledger: Ledger, sinks: Sinks, seed: int
    ) -> None:
        self.operator = operator
        self.far = far
        self.ledger = ledger
        self.sinks = sinks
        self.refusals: list[tuple[float, float]] = []
        """When an event was published that cuts access, and the seconds until the first no."""
        self.failures: list[str] = []
        self.told: list[str] = []
        """The names of the stories that were told."""
        self.guard = Guard(
            lambda text: operator.verify(text, record=False).valid, self.failures.append
        )
        self._seed = seed
        self._numbers = count(1)
        self._until = 0.0

    def run(
        self,
        until: float,
        short: Sequence[Story],
        long: Sequence[Story],
        tellers: tuple[int, int] = (6, 3),
        crowd: int = 60,
    ) -> None:
        """Tell stories, and publish the bulk beside them, until this time of the monotonic clock.

        The short ones are drawn by their weights; of the long ones, which mostly wait, each comes
        in its turn. Returns when the last story is over.
        """
        self._until = until
        stop = threading.Event()
        with ThreadPoolExecutor(sum(tellers) + 2) as pool:
            looks = pool.submit(self.guard.run, stop)
            jobs = [pool.submit(self._tell, short, number) for number in range(tellers[0])]
            jobs += [pool.submit(self._tell_all, long, number) for number in range(tellers[1])]
            jobs.append(pool.submit(self._bulk, crowd))
            try:
                for job in jobs:
                    job.result()
            finally:
                stop.set()
            looks.result()

    def over(self, reserve: float = 0.0) -> bool:
        """Whether the load ends, or would end within `reserve` seconds."""
        return time.monotonic() + reserve > self._until

    def probe(self) -> float | None:
        """A new account with a key is disabled; the seconds from publishing to the first no."""
        account = self.account("probe", in_step=True)
        return self.cut(account, self.event(account, "disabled"))

    def _tell(self, stories: Sequence[Story], number: int) -> None:
        draw = random.Random(f"{self._seed}/{number}")
        while stories and not self.over():
            story = draw.choices(stories, [one.weight for one in stories])[0]
            if not self.over(story.reserve):
                self._tell_one(story, draw)

    def _tell_all(self, stories: Sequence[Story], number: int) -> None:
        draw = random.Random(f"{self._seed}/long/{number}")
        while any(not self.over(story.reserve) for story in stories):
            for story in draw.sample(list(stories), len(stories)):
                if not self.over(story.reserve):
                    self._tell_one(story, draw)

    def _tell_one(self, story: Story, draw: random.Random) -> None:
        self.told.append(story.name)
        try:
            story.tell(self, draw)
        except Exception as error:
            self.failures.append(f"{story.name}: {type(error).__name__}: {error}")

    def _bulk(self, crowd: int) -> None:
        """Many accounts, whose events come in any order and often more than once."""
        draw = random.Random(f"{self._seed}/bulk")
        accounts = [self.account("bulk") for _ in range(crowd)]
        numbers = {account.email: count(1) for account in accounts}
        while not self.over():
            some = draw.sample(accounts, 10)
            batch = [
                self.event(one, draw.choice(("disabled", "enabled")), next(numbers[one.email]))
                for one in some
                for _ in range(2)
            ]
            batch += draw.sample(batch, 5)
            draw.shuffle(batch)
            for event in batch:
                self.far.publish(event)
            time.sleep(draw.uniform(0.2, 0.8))

    def account(
        self, story: str, *, in_step: bool = False, expires: bool = False, role: str = "viewer"
    ) -> Account:
        """An account with one key, or two where an answer was lost."""
        account = self.owner(story, in_step=in_step, expires=expires)
        self.key(account, SHORT_LIFE if expires else 30 * 86400, role)
        return account

    def owner(self, story: str, *, in_step: bool = False, expires: bool = False) -> Account:
        """An account that has no key yet."""
        number = next(self._numbers)
        account = Account(f"{story}{number}@chaos.example", story, in_step=in_step, expires=expires)
        self.ledger.open(account)

        def create() -> None:
            with suppress(Refused):  # the answer to an earlier try was lost: it is there
                self.operator.create_account(account.email, "member")

        again(create)
        return account

    def key(self, account: Account, seconds: int, role: str = "viewer") -> tuple[str, str]:
        def create() -> tuple[str, str]:
            key = self.operator.create_api_key(
                "a key", account.email, role, seconds, TimeUnit.SECOND
            )
            return str(key.id), key.text.reveal()

        key_id, text = again(create)
        account.texts.append(text)
        return key_id, text

    def event(
        self, account: Account, action: str, sequence: int | None = None, named: bool = True
    ) -> Event:
        name = f"e{next(self._numbers)}"
        return self.ledger.enter(Event(name, account.email, action, sequence, named))

    def leak(self, account: Account, text: str) -> Event:
        """Somebody reports that others know this key."""
        digest = sha256(text.encode()).hexdigest()
        name = f"e{next(self._numbers)}"
        return self.ledger.enter(Event(name, account.email, LEAKED, digest=digest))

    def cut(self, account: Account, event: Event) -> float | None:
        """Publish what takes access away and wait for the first no; None where it never came."""
        self.far.publish(event)
        at = self.awaited(account.texts[0], event, valid=False)
        if at is None:
            return None
        self.refusals.append((event.published, at - event.published))
        return at - event.published

    def awaited(self, text: str, event: Event, *, valid: bool) -> float | None:
        """When `verify` first says so."""
        deadline = time.monotonic() + LONGEST_WAIT
        looked = time.monotonic()
        while time.monotonic() < deadline:
            with suppress(Exception):  # no answer is not a no
                if self.operator.verify(text, record=False).valid == valid:
                    return time.time()
            if time.monotonic() - looked > 5:
                looked = time.monotonic()
                if self.is_flushed(event):
                    return None
            time.sleep(LOOK_EVERY)
        return None

    def is_flushed(self, event: Event) -> bool:
        """Whether it can never come: a flush took it, and it did not come in before."""
        if not self.ledger.may_be_flushed(event):
            return False
        return not again(lambda: _came_in(self.operator, event))


def _came_in(operator: Operator, event: Event) -> bool:
    with operator.database.begin() as tx:
        return bool(
            tx.scalar(
                """
                SELECT EXISTS (SELECT FROM keyturn.inbox
                WHERE event_id = :name OR (event_id IS NULL AND :account = ANY(subject_value)))
                """,
                name=event.name,
                account=event.account,
            )
        )


def again(work: Callable[[], T], within: float = 60.0) -> T:
    """The product's patience: once more where the server failed. Refusals are answers."""
    deadline = time.monotonic() + within
    while True:
        try:
            return work()
        except Refused:
            raise
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
