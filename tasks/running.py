"""Which flows run in this process just now, and for how long: what a watchdog looks at."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_running: dict[int, tuple[str, float]] = {}
_NO_THREAD: Final = 0


@contextmanager
def noted(flow: str, allowed: float = 0.0) -> Iterator[None]:
    """Count a flow as running in this thread until the block ends.

    What may take long by its nature has `allowed` seconds that do not count.
    """
    thread = threading.get_ident()
    outer = _running.get(thread)
    _running[thread] = (flow, time.monotonic() + allowed)
    try:
        yield
    finally:
        if outer is None:
            _running.pop(thread, None)
        else:
            _running[thread] = outer


def ending(allowed: float = 0.0) -> None:
    """Count the end of this process as running from now on; its first `allowed` seconds do not."""
    _running.setdefault(_NO_THREAD, ("the end of the process", time.monotonic() + allowed))


def others() -> int:
    """How many other threads than this one have a flow under way."""
    mine = (_NO_THREAD, threading.get_ident())
    return sum(thread not in mine for thread in list(_running))


def longest() -> tuple[str, float] | None:
    """The flow that has run for the longest, and its seconds; None where none runs."""
    started = min(list(_running.values()), key=lambda one: one[1], default=None)
    return None if started is None else (started[0], time.monotonic() - started[1])
