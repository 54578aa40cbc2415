"""The demo from its start to its end: the chapters in their order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

from redis import RedisError

from . import accounts_story, keys_story
from .asking import Product
from .producers import producers
from .stack import Stack
from .stage import Stage
from .timeline import CheckFailed, Entry, Timeline
from .watch import Watch


@dataclass(frozen=True)
class Outcome:
    """How the demo went. `failure` says which check failed; `logs` are kept only then."""

    entries: Sequence[Entry]
    failure: str | None = None
    logs: Path | None = None

    @property
    def checks(self) -> int:
        """How many checks passed."""
        return len(self.entries)


def play(tell: Callable[[str], None]) -> Outcome:
    """Play it all, in a directory that is gone afterwards; `tell` gets what begins."""
    timeline = Timeline(tell)
    timeline.chapter("Keyturn starts, in a directory of its own")
    stack = Stack()
    try:
        with (
            stack,
            Product(stack) as product,
            Watch(product) as watch,
            producers(stack.servers().broker_url) as sending,
        ):
            _chapters(Stage(stack, product, watch, sending, timeline))
            timeline.chapter("Keyturn stops")
    except (CheckFailed, OSError, RedisError, SubprocessError) as failure:
        return Outcome(timeline.entries, str(failure), stack.logs)
    return Outcome(timeline.entries)


def _chapters(stage: Stage) -> None:
    keys_story.opening(stage)
    rotation = keys_story.rotation_begins(stage)
    accounts_story.native(stage)
    accounts_story.okta(stage)
    accounts_story.keycloak(stage)
    accounts_story.out_of_order(stage)
    accounts_story.latecomer(stage)
    accounts_story.two_holds(stage)
    accounts_story.unreadable(stage)
    keys_story.killed_worker(stage)
    keys_story.rotation_ends(stage, rotation)
    keys_story.last_minute(stage)
    keys_story.what_is_left(stage)
