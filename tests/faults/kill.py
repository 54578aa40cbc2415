"""A process of its own that runs a flow, and is killed by SIGKILL on the way."""

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

from tests.faults.flows import FLOWS
from tests.faults.matrix import Outcome, follow, recovered
from tests.faults.points import COMMIT, Fault
from tests.faults.site import Kept, Site

_KILL: Final = Fault("kill", "after")
_processes: Final = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def kill(site: Site, outcome: Outcome, database_url: str) -> None:
    """Let a process die by SIGKILL just after the flow's middle commit, then recover."""
    commits = [point for point in outcome.points if point.kind == COMMIT]
    point = commits[len(commits) // 2]
    site.restore()
    hear, tell = _processes.Pipe(duplex=False)
    process = _processes.Process(
        target=_live, args=(database_url, outcome.flow.name, point.number, site.kept, tell)
    )
    process.start()
    tell.close()
    step = _listen(site, hear)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL, f"the process ended with {process.exitcode}"
    follow(site, outcome.flow, step)
    recovered(site, outcome, f"{outcome.flow.name}, {_KILL} {point}")


def _live(database_url: str, name: str, number: int, kept: Kept, tell: Connection) -> None:
    """The life of that process. What it publishes and sends gets out before it dies."""
    flow = FLOWS[name]
    site = Site(database_url, flow.policy)
    site.recall(kept)
    site.enqueue = _telling(tell, "ring")  # type: ignore[method-assign,assignment]
    for who, far_side in site.outside().items():
        far_side.take = _telling(tell, who)
    with site.points.counted(_KILL, number):
        for index, step in enumerate(flow.steps):
            tell.send(("step", index))
            step.act(site)


def _telling(tell: Connection, what: str) -> Callable[[Any], None]:
    return lambda content: tell.send((what, content))


def _listen(site: Site, hear: Connection) -> int:
    """Hear the process until its death; returns the step that it died in."""
    step = -1
    with hear:
        while True:
            try:
                what, content = hear.recv()
            except EOFError:
                return step
            if what == "step":
                step = content
            elif what == "ring":
                site.enqueue(content)
            else:
                site.outside()[what].take(content)
