"""What a forked child must not share with its parent: connections, and locks that somebody holds.

Servers of products fork after they have loaded the application (preloading), and programs do so
whenever they like. Two processes on one connection read each other's answers.
"""

import os
from typing import Final, Protocol
from weakref import WeakSet


class Inherited(Protocol):
    """Something that a child finds as it was in its parent."""

    def forget_parent(self) -> None:
        """Begin anew: what the parent has open stays the parent's, untouched."""


_inherited: Final[WeakSet[Inherited]] = WeakSet()


def begins_anew(one: Inherited) -> None:
    """Have `one` told in each child, as long as it is in use."""
    _inherited.add(one)


def _in_child() -> None:
    for one in list(_inherited):
        one.forget_parent()


os.register_at_fork(after_in_child=_in_child)
