"""A second pair of eyes: asks verify about a few keys all the time, whatever else goes on."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from .asking import Product
from .timeline import CheckFailed, wait

_EVERY: Final = 0.1  # seconds


@dataclass(frozen=True)
class Look:
    """What verify said of each key: asked at `at` (monotonic clock), answered by `when` (UTC)."""

    at: float
    when: datetime
    answers: Mapping[str, str]


class Watch:
    """Looks ten times a second, in a thread that lives as long as the `with`."""

    def __init__(self, product: Product) -> None:
        self._product = product
        self._texts: dict[str, str] = {}
        self._looks: list[Look] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def follow(self, name: str, text: str) -> None:
        """Look at this key from now on."""
        self._texts = self._texts | {name: text}

    def looks(self, *names: str) -> list[Look]:
        """All looks at which these keys were followed."""
        return [look for look in self._looks if look.answers.keys() >= set(names)]

    def first(self, name: str, answer: str) -> Look:
        """The first look at which verify said this of the key; waits for it."""
        found = wait(lambda: self._found(name, answer), bool, within=120)
        if not found:
            seen = {look.answers[name] for look in self.looks(name)}
            raise CheckFailed(f"verify of {name}", repr(answer), sorted(seen))
        return found[0]

    def _found(self, name: str, answer: str) -> list[Look]:
        return [look for look in self.looks(name) if look.answers[name] == answer][:1]

    def _run(self) -> None:
        while not self._over.wait(_EVERY):
            at, texts = time.monotonic(), self._texts
            try:
                answers = {name: self._product.verify(text) for name, text in texts.items()}
            except (CheckFailed, OSError, ValueError):
                return  # the product has ended: whoever waits for an answer will say so
            self._looks.append(Look(at, datetime.now(UTC), answers))
