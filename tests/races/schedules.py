"""Which orders of two sides to try: those with the fewest changes of turn first."""

import itertools
import random
from collections.abc import Iterator

Schedule = tuple[tuple[int, int], ...]
"""Who goes for how many steps, in turn; afterwards each goes to its end."""


def schedules(steps: tuple[int, int], most: int) -> Iterator[Schedule]:
    """At most `most` orders: all with one change of turn, then with two, then some with more.

    Most races need two changes at the most, so these come first and whole, as far as `most` goes;
    among those of one number of changes the order is shuffled, the same in every run.
    """
    found = (s for changes in range(1, 5) for s in _shuffled(steps, changes))
    yield from itertools.islice(found, most)


def _shuffled(steps: tuple[int, int], changes: int) -> list[Schedule]:
    every: list[Schedule] = []
    for first in (0, 1):
        sides = [(first + turn) % 2 for turn in range(changes)]
        lengths = [range(1, steps[side]) for side in sides]
        every += [
            (*zip(sides, chosen, strict=True), ((first + changes) % 2, 10_000))
            for chosen in itertools.islice(itertools.product(*lengths), 20_000)
            if all(sum(chosen[at::2]) < steps[sides[at]] for at in range(min(2, changes)))
        ]
    random.Random(changes).shuffle(every)
    return every
