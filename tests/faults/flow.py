"""What a flow is: a prepared world, the steps that are broken, and what their users do then."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from models.policy import Policy
from tests.faults.site import POLICY, Site

Verb = Callable[[Site], object]
"""What somebody does at a site."""


@dataclass(frozen=True)
class Step:
    """Something that somebody does, and what they do if it ends without an answer.

    `again` None: nobody waits for an answer, the schedule must find what is left. `task` is the
    flow of `tasks` that it runs, if it runs one.
    """

    act: Verb
    again: Verb | None
    task: str = ""


def task(name: str) -> Step:
    """The worker runs a flow of `tasks`."""
    return Step(lambda site: site.run(name), None, name)


def command(act: Verb, again: Verb | None = None) -> Step:
    """A person, a product or a transport does something; without an answer it does it again."""
    return Step(act, again or act)


@dataclass(frozen=True)
class Flow:
    """A flow of the matrix.

    `lost_answer` says why one who did not get the answer of a command leaves something else behind
    than one who did: then both ends are right, and both must be seen.
    """

    name: str
    prepare: Verb
    steps: Sequence[Step]
    policy: Policy = field(default=POLICY)
    lost_answer: str = ""
