"""The load: what happens to accounts, each story with an account of its own, drawn by a seed."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Final, TypeVar

from models import TimeUnit
from models.errors import Refused
from models.operator import Operator
from tests.chaos.delivery import Far
from tests.chaos.ledger import Account, Event, Ledger

T = TypeVar("T")

LONGEST_WAIT: Final = 120.0
"""Seconds after which a story gives up waiting; what is wrong shows in the end."""
LOOK_EVERY: Final = 0.01
SHORT_LIFE: Final = 60
"""Seconds: the shortest validity that there is."""


class Load:
    """Tells stories until it is stopped. What it meets, it enters in the ledger."""

    def __init__(self, operator: Operator, far: Far, ledger: Ledger, seed: int) -> None:
        self.operator = operator
        self.far = far
        self.ledger = ledger
        self.refusals: list[tuple[float, float]] = []
        """When an event was published that cuts access, and the seconds until the first no."""
        self.failures: list[str] = []
        self.told: list[str] = []
        """The names of the stories that were told."""
        self._seed = seed
        self._numbers = count(1)
        self._until = 0.0

    def run(self, until: float, storytellers: int = 6, crowd: int = 60) -> None:
        """Tell stories, and publish the bulk beside them, until this time of the monotonic clock.

        Returns when the last story is over.
        """
        self._until = until
        with ThreadPoolExecutor(storytellers + 1) as pool:
            jobs = [pool.submit(self._tell, number) for number in range(storytellers)]
            jobs.append(pool.submit(self._bulk, crowd))
            for job in jobs:
                job.result()

    def over(self, reserve: float = 0.0) -> bool:
        """Whether the load ends, or would end within `reserve` seconds."""
        return time.monotonic() + reserve > self._until

    def cut(self, story: str = "probe") -> float | None:
        """A new account with a key is disabled; the seconds from publishing to the first no."""
        account = self._account(story, in_step=True)
        return self._cut(account, self._event(account, "disabled"))

    def _tell(self, number: int) -> None:
        draw = random.Random(f"{self._seed}/{number}")
        while not self.over():
            story = draw.choices(list(_STORIES), list(_STORIES.values()))[0]
            if story is expire and self.over(reserve=SHORT_LIFE + 5):
                continue
            self.told.append(story.__name__)
            try:
                story(self, draw)
            except Exception as error:
                self.failures.append(f"{story.__name__}: {type(error).__name__}: {error}")

    def _bulk(self, crowd: int) -> None:
        """Many accounts, whose events come in any order and often more than once."""
        draw = random.Random(f"{self._seed}/bulk")
        accounts = [self._account("bulk") for _ in range(crowd)]
        numbers = {account.email: count(1) for account in accounts}
        while not self.over():
            some = draw.sample(accounts, 10)
            batch = [
                self._event(one, draw.choice(("disabled", "enabled")), next(numbers[one.email]))
                for one in some
                for _ in range(2)
            ]
            batch += draw.sample(batch, 5)
            draw.shuffle(batch)
            for event in batch:
                self.far.publish(event)
            time.sleep(draw.uniform(0.2, 0.8))

    def _account(self, story: str, *, in_step: bool = False, expires: bool = False) -> Account:
        """An account with one key, or two where an answer was lost."""
        number = next(self._numbers)
        account = Account(f"{story}{number}@chaos.example", story, in_step=in_step, expires=expires)
        self.ledger.open(account)

        def create() -> None:
            with suppress(Refused):  # the answer to an earlier try was lost: it is there
                self.operator.create_account(account.email, "member")

        again(create)
        self._key(account, SHORT_LIFE if expires else 30 * 86400)
        return account

    def _key(self, account: Account, seconds: int) -> tuple[str, str]:
        def create() -> tuple[str, str]:
            key = self.operator.create_api_key(
                "a key", account.email, "viewer", seconds, TimeUnit.SECOND
            )
            return str(key.id), key.text.reveal()

        key_id, text = again(create)
        account.texts.append(text)
        return key_id, text

    def _event(
        self, account: Account, action: str, sequence: int | None = None, named: bool = True
    ) -> Event:
        name = f"e{next(self._numbers)}"
        return self.ledger.enter(Event(name, account.email, action, sequence, named))

    def _cut(self, account: Account, event: Event) -> float | None:
        """Publish what takes access away and wait for the first no; None where it never came."""
        self.far.publish(event)
        at = self._awaited(account.texts[0], event, valid=False)
        if at is None:
            return None
        self.refusals.append((event.published, at - event.published))
        return at - event.published

    def _awaited(self, text: str, event: Event, *, valid: bool) -> float | None:
        """When `verify` first says so."""
        deadline = time.monotonic() + LONGEST_WAIT
        looked = time.monotonic()
        while time.monotonic() < deadline:
            with suppress(Exception):  # no answer is not a no
                if self.operator.verify(text, record=False).valid == valid:
                    return time.time()
            if time.monotonic() - looked > 5:
                looked = time.monotonic()
                if self._is_flushed(event):
                    return None
            time.sleep(LOOK_EVERY)
        return None

    def _is_flushed(self, event: Event) -> bool:
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


def disable(load: Load, draw: random.Random) -> None:
    """Disabled, published once to four times."""
    account = load._account("disable", in_step=True)
    event = load._event(account, "disabled")
    load._cut(account, event)
    for _ in range(draw.choice((0, 0, 1, 3))):
        load.far.publish(event)


def without_id(load: Load, draw: random.Random) -> None:
    """Disabled by a producer who gives no ids."""
    account = load._account("without_id")
    load._cut(account, load._event(account, "disabled", named=False))


def there_and_back(load: Load, draw: random.Random) -> None:
    """Disabled and enabled in turns, each after the other's effect."""
    account = load._account("there_and_back", in_step=True)
    for step in range(1, draw.choice((2, 3, 4)) + 1):
        if step % 2:
            if load._cut(account, load._event(account, "disabled", step)) is None:
                account.in_step = False
                return
        else:
            event = load._event(account, "enabled", step)
            load.far.publish(event)
            if load._awaited(account.texts[0], event, valid=True) is None:
                account.in_step = False
                return


def shuffled(load: Load, draw: random.Random) -> None:
    """Events with numbers in any order, some of them twice, some late."""
    account = load._account("shuffled")
    events = [
        load._event(account, draw.choice(("disabled", "enabled")), step) for step in range(1, 6)
    ]
    events += draw.sample(events, 2)
    draw.shuffle(events)
    for event in events:
        load.far.publish(event)
        time.sleep(draw.choice((0, 0, 0.2, 1)))


def delete(load: Load, draw: random.Random) -> None:
    """The account is deleted."""
    account = load._account("delete", in_step=True)
    load._cut(account, load._event(account, "deleted"))


def compromise(load: Load, draw: random.Random) -> None:
    """The account is compromised."""
    account = load._account("compromise", in_step=True)
    load._cut(account, load._event(account, "compromised"))


def create_meanwhile(load: Load, draw: random.Random) -> None:
    """Keys are created while the account is disabled: none may slip through."""
    account = load._account("create_meanwhile", in_step=True)
    event = load._event(account, "disabled")

    def create() -> None:
        with suppress(Refused):
            for _ in range(20):
                load._key(account, 86400)

    thread = threading.Thread(target=create)
    thread.start()
    try:
        load._cut(account, event)
    finally:
        thread.join()


def expire(load: Load, draw: random.Random) -> None:
    """A key of a minute; nobody waits for it."""
    load._account("expire", expires=True)


def rotate(load: Load, draw: random.Random) -> None:
    """A key is rotated, its successor claimed and used; what follows is Keyturn's business."""
    account = load._account("rotate")
    account.rotation = "completed"
    [old] = account.texts
    rotation = again(lambda: load.operator.rotate(old, idempotency_key=account.email))
    again(lambda: load.operator.verify(old))
    try:
        new = again(lambda: load.operator.claim(old)).secret.reveal()
    except Refused as refused:
        if refused.code != "already_claimed":
            raise
        # The answer was lost, and the text with it: what the documentation says to do.
        again(lambda: load.operator.cancel_rotation(str(rotation.id), "the answer was lost"))
        account.rotation = "cancelled"
        account.end = {old: "active"}
        return
    account.texts.append(new)
    account.end = {old: "deleted", new: "active"}
    again(lambda: load.operator.verify(new))


_STORIES: Final[dict[Callable[[Load, random.Random], None], int]] = {
    disable: 6,
    without_id: 2,
    there_and_back: 4,
    shuffled: 4,
    delete: 2,
    compromise: 2,
    create_meanwhile: 1,
    expire: 2,
    rotate: 2,
}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
