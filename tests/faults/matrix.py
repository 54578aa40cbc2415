"""Runs a flow undisturbed, then once per point and fault, and looks at what is there in the end."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy.exc import DBAPIError

from tests.faults.dump import Dump, difference
from tests.faults.flow import Flow, Step
from tests.faults.points import COMMIT, FAULTS, KINDS, Broken, Died, Fault, Point
from tests.faults.site import Site

PART: Final = (Fault("death", "after"),)
"""What every run of the tests breaks the flows by, at the points of `part`."""

INJECTED: Final = (Broken, Died, DBAPIError, ConnectionError)
"""What a fault may come out as. Anything else that a step raises is a failure of the matrix."""


@dataclass
class Outcome:
    """What became of a flow: the points of its undisturbed run, the runs, and what was wrong."""

    flow: Flow
    points: Sequence[Point] = ()
    ends: Sequence[Dump] = ()
    exercised: Counter[Fault] = field(default_factory=Counter)
    seen: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    @property
    def counts(self) -> Counter[str]:
        """Points by their kind."""
        return Counter(point.kind for point in self.points)

    def line(self) -> str:
        """The counts as they stand in docs/reliability.md."""
        counts = " ".join(f"{_plural(kind)}={self.counts[kind]}" for kind in KINDS)
        return f"{self.flow.name}: {counts} points={len(self.points)}"


@contextmanager
def prepared(flow: Flow, database_url: str) -> Iterator[tuple[Site, Outcome]]:
    """A site with the flow's world, and the outcome that the undisturbed run begins."""
    site = Site(database_url, flow.policy)
    try:
        flow.prepare(site)
        site.keep()
        outcome = Outcome(flow)
        with site.points.counted():
            for step in flow.steps:
                step.act(site)
        outcome.points = site.points.passed
        ends = [_end(site, outcome, "undisturbed")]
        if flow.lost_answer:
            ends.append(_without_answers(site, outcome))
        outcome.ends = ends
        yield site, outcome
    finally:
        site.close()


def exercise(
    site: Site, outcome: Outcome, points: Sequence[Point], faults: Sequence[Fault] = FAULTS
) -> None:
    """Break the flow at each of these points, in each of these ways."""
    for fault in faults:
        for point in points:
            if fault.fits(point):
                site.restore()
                _break(site, outcome, fault, point)


_RUNS: Final = re.compile(r"keyturn\.schedule_runs (AS|SET)")
"""How statements begin that say which flow runs, or ran."""


def part(outcome: Outcome) -> list[Point]:
    """The points that every run of the tests takes: commits, but those of who runs what."""
    return [
        point for point in outcome.points if point.kind == COMMIT and not _RUNS.search(point.what)
    ]


def recovered(site: Site, outcome: Outcome, what: str) -> None:
    """Let the schedule go on; then the promises hold, and the end is one that is expected."""
    end = _end(site, outcome, what)
    if end in outcome.ends:
        outcome.seen.add(list(outcome.ends).index(end))
        return
    outcome.wrong += [f"{what}: {line}" for line in difference(outcome.ends[0], end)]


def follow(site: Site, flow: Flow, broken: int) -> None:
    """What goes on by itself when step number `broken` ended without an answer."""
    again = flow.steps[broken].again
    if again:
        again(site)
    for step in flow.steps[broken + 1 :]:
        step.act(site)


def _break(site: Site, outcome: Outcome, fault: Fault, point: Point) -> None:
    what = f"{outcome.flow.name}, {fault} {point}"
    with site.points.counted(fault, point.number):
        for step in outcome.flow.steps:
            _survive(site, step)
    if site.points.hit is None or (site.points.hit.kind, site.points.hit.what) != (
        point.kind,
        point.what,
    ):
        outcome.wrong.append(f"{what}: broke at {site.points.hit} instead")
        return
    outcome.exercised[fault] += 1
    recovered(site, outcome, what)


def _survive(site: Site, step: Step) -> None:
    try:
        step.act(site)
    except INJECTED as error:
        if site.points.hit is None:
            raise
        if isinstance(error, Died):
            site.start_worker()
        if step.again:
            step.again(site)


def _without_answers(site: Site, outcome: Outcome) -> Dump:
    """The end where all worked, but nobody was told so."""
    site.restore()
    for step in outcome.flow.steps:
        step.act(site)
        if step.again:
            step.again(site)
    return _end(site, outcome, "undisturbed, without answers")


def _end(site: Site, outcome: Outcome, what: str) -> Dump:
    try:
        site.recover()
    except Exception as error:
        outcome.wrong.append(f"{what}: the recovery failed: {error!r}"[:500])
    outcome.wrong += [f"{what}: {one}" for one in site.broken()]
    return site.state()


def _plural(kind: str) -> str:
    return f"{kind}es" if kind.endswith("sh") else f"{kind}s"
