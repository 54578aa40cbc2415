"""What happened when, what `verify` said to it, and whether that was right."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

_EVERY = 0.02  # seconds between two looks
_WITHIN = 60.0  # seconds; far more than anything takes on a busy machine


class CheckFailed(Exception):
    """Something is not as it must be. Says what was expected, and what was seen."""

    def __init__(self, what: str, expected: object, seen: object) -> None:
        super().__init__(f"{what}: expected {expected}, saw {seen}")


@dataclass(frozen=True)
class Entry:
    """One line: seconds since the start, what happened, what was seen, seconds it took."""

    at: float
    what: str
    seen: str
    took: float | None = None


class Timeline:
    """What has happened so far."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` gets the title of each chapter as it begins."""
        self._entries: list[Entry] = []
        self._tell = tell
        self._start = time.monotonic()

    @property
    def entries(self) -> list[Entry]:
        """One for each check that has passed, in the order in which things happened."""
        return sorted(self._entries, key=lambda entry: entry.at)

    def chapter(self, title: str) -> None:
        """Tell what comes now."""
        self._tell(f"{self._now():6.1f} s  {title}")

    def check(
        self,
        what: str,
        expected: object,
        seen: object,
        *,
        say: str = "",
        at: float | None = None,
        took: float | None = None,
    ) -> None:
        """Write down that `seen` is `expected`, in the words `say`. Raises CheckFailed.

        `at` is when it was seen, by the monotonic clock, if that is not now.
        """
        if seen != expected:
            raise CheckFailed(what, repr(expected), repr(seen))
        when = self._now() if at is None else at - self._start
        self._entries.append(Entry(when, what, say or str(seen), took))

    def _now(self) -> float:
        return time.monotonic() - self._start


def wait(
    ask: Callable[[], T],
    good: Callable[[T], bool],
    *,
    within: float = _WITHIN,
    every: float = _EVERY,
) -> T:
    """The first good answer; or the last one, when `within` seconds have passed."""
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if good(answer) or time.monotonic() > deadline:
            return answer
        time.sleep(every)
