"""Whether nobody is locked out: of each family of keys one works at every moment."""

import threading
import time
from collections.abc import Callable
from typing import Final

LOOKED_AT: Final = 60.0
"""Seconds for which a family is watched; its rotation is over by then, or stands still."""
EVERY: Final = 0.5
"""Seconds between two looks."""


class Guard:
    """Looks again and again whether each family that it watches has a key that works.

    Threads may share it. A family is a list of texts: whoever learns of a successor appends its
    text, before anything is done with it.
    """

    def __init__(self, works: Callable[[str], bool], report: Callable[[str], None]) -> None:
        """`works` may raise: no answer is not a no. `report` is told of each family once."""
        self._works = works
        self._report = report
        self._families: list[tuple[str, list[str], float]] = []
        self._lock = threading.Lock()
        self.looks = 0

    def watch(self, name: str, *texts: str) -> list[str]:
        """From now on, for LOOKED_AT seconds: the family."""
        family = list(texts)
        with self._lock:
            self._families.append((name, family, time.monotonic() + LOOKED_AT))
        return family

    def run(self, stop: threading.Event) -> None:
        """Look until told to stop."""
        while not stop.wait(EVERY):
            self.look()

    def look(self) -> None:
        """One look at every family."""
        now = time.monotonic()
        with self._lock:
            self._families = [one for one in self._families if one[2] > now]
            families = list(self._families)
        locked_out = [one for one in families if not self._one_works(one[1])]
        self.looks += len(families)
        for name, family, _ in locked_out:
            self._report(f"{name} is locked out: none of its {len(family)} keys works")
        with self._lock:
            self._families = [one for one in self._families if one not in locked_out]

    def _one_works(self, family: list[str]) -> bool:
        """Asked twice: a successor may be learnt of between the questions."""
        try:
            return any(self._works(text) for _ in range(2) for text in reversed(list(family)))
        except Exception:
            return True
