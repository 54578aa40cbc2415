"""Rounds: every side is measured in turns, so that what disturbs the machine disturbs them all."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import median

Rates = Mapping[str, float]


@dataclass(frozen=True)
class Figures:
    """What a measure found: ratios that have a bar, and figures for orientation."""

    ratios: Rates = field(default_factory=dict)
    rates: Rates = field(default_factory=dict)


@dataclass
class Timer:
    """Seconds that passed; set when the block ends."""

    seconds: float = 0.0


@contextmanager
def timed() -> Iterator[Timer]:
    """Measure a block by the monotonic clock."""
    timer = Timer()
    start = time.perf_counter()
    yield timer
    timer.seconds = time.perf_counter() - start


def interleave(rounds: int, sides: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Ask each side in turn for its figure, `rounds` times; the median of each.

    A side prepares its own ground, times only the work, and says how many things it did a second.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            found[name].append(side())
    return {name: median(figures) for name, figures in found.items()}
