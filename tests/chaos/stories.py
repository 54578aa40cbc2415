"""What happens to accounts, each story with an account of its own."""

import random
import threading
import time
from contextlib import suppress
from typing import Final

from models.errors import Refused
from tests.chaos.load import SHORT_LIFE, Load, Story, again
from tests.chaos.rotation_stories import claimed


def disable(load: Load, draw: random.Random) -> None:
    """Disabled, published once to four times."""
    account = load.account("disable", in_step=True)
    event = load.event(account, "disabled")
    load.cut(account, event)
    for _ in range(draw.choice((0, 0, 1, 3))):
        load.far.publish(event)


def without_id(load: Load, draw: random.Random) -> None:
    """Disabled by a producer who gives no ids."""
    account = load.account("without_id")
    load.cut(account, load.event(account, "disabled", named=False))


def there_and_back(load: Load, draw: random.Random) -> None:
    """Disabled and enabled in turns, each after the other's effect."""
    account = load.account("there_and_back", in_step=True)
    for step in range(1, draw.choice((2, 3, 4)) + 1):
        if step % 2:
            if load.cut(account, load.event(account, "disabled", step)) is None:
                account.in_step = False
                return
        else:
            event = load.event(account, "enabled", step)
            load.far.publish(event)
            if load.awaited(account.texts[0], event, valid=True) is None:
                account.in_step = False
                return


def shuffled(load: Load, draw: random.Random) -> None:
    """Events with numbers in any order, some of them twice, some late."""
    account = load.account("shuffled")
    events = [
        load.event(account, draw.choice(("disabled", "enabled")), step) for step in range(1, 6)
    ]
    events += draw.sample(events, 2)
    draw.shuffle(events)
    for event in events:
        load.far.publish(event)
        time.sleep(draw.choice((0, 0, 0.2, 1)))


def delete(load: Load, draw: random.Random) -> None:
    """The account is deleted."""
    account = load.account("delete", in_step=True)
    load.cut(account, load.event(account, "deleted"))


def compromise(load: Load, draw: random.Random) -> None:
    """The account is compromised."""
    account = load.account("compromise", in_step=True)
    load.cut(account, load.event(account, "compromised"))


def create_meanwhile(load: Load, draw: random.Random) -> None:
    """Keys are created while the account is disabled: none may slip through."""
    account = load.account("create_meanwhile", in_step=True)
    event = load.event(account, "disabled")

    def create() -> None:
        with suppress(Refused):
            for _ in range(20):
                load.key(account, 86400)

    thread = threading.Thread(target=create)
    thread.start()
    try:
        load.cut(account, event)
    finally:
        thread.join()


def expire(load: Load, draw: random.Random) -> None:
    """A key of a minute; nobody waits for it."""
    load.account("expire", expires=True)


def rotate(load: Load, draw: random.Random) -> None:
    """A key is rotated, its successor claimed and used; what follows is Keyturn's business."""
    account = load.account("rotate")
    begun = again(lambda: load.operator.rotate(account.texts[0], idempotency_key=account.email))
    family = load.guard.watch(account.email, account.texts[0])
    again(lambda: load.operator.verify(account.texts[0]))
    new = claimed(load, account, account.texts[0], begun)
    if new is None:
        account.rotations = ("cancelled",)
        return
    family.append(new)
    account.rotations = ("completed",)
    again(lambda: load.operator.verify(new))


STORIES: Final = (
    Story(disable, 6),
    Story(without_id, 2),
    Story(there_and_back, 4),
    Story(shuffled, 4),
    Story(delete, 2),
    Story(compromise, 2),
    Story(create_meanwhile),
    Story(expire, 2, reserve=SHORT_LIFE + 5),
    Story(rotate, 2),
)
