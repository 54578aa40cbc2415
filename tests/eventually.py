"""Waits for what happens elsewhere, by looking again and again instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], *, within: float = 60.0, every: float = 0.05) -> T:
    """The first true value of `condition`, asked for at most `within` seconds.

    An exception of the condition counts as "not yet"; the last one is shown if time runs out.
    """
    deadline = time.monotonic() + within
    while True:
        value, error = _ask(condition)
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s; last seen: {error or value!r}") from error
        time.sleep(every)


def _ask(condition: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return condition(), None
    except Exception as error:  # whatever it is, there is time left
        return None, error
