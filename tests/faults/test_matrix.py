"""A flow that breaks, at any point and in any way, ends as if it had not (issue 3)."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import tasks
from tests.faults.conftest import LINE
from tests.faults.flow import Flow, Step
from tests.faults.flows import FLOWS
from tests.faults.kill import kill
from tests.faults.matrix import PART, exercise, part, prepared
from tests.faults.points import FAULTS
from tests.faults.site import Site
from tests.world import ADA


@pytest.mark.parametrize("name", FLOWS)
def test_flow(
    name: str,
    database_url: str,
    request: pytest.FixtureRequest,
    record_property: Callable[[str, object], None],
) -> None:
    whole = request.config.getoption("--whole", default=False)
    with prepared(FLOWS[name], database_url) as (site, outcome):
        record_property(LINE, outcome.line())
        points, faults = (outcome.points, FAULTS) if whole else (part(outcome), PART)
        exercise(site, outcome, points, faults)
        kill(site, outcome, database_url)
    assert not outcome.wrong, "\n" + "\n".join(outcome.wrong)
    for fault in faults:
        fitting = [point for point in points if fault.fits(point)]
        assert outcome.exercised[fault] == len(fitting) > 0
    assert not whole or outcome.seen == set(range(len(outcome.ends)))


def test_a_flow_that_cannot_be_broken_off_is_found(database_url: str) -> None:
    """Two commits with nobody who finishes what lies between them."""

    def prepare(site: Site) -> None:
        site.account(ADA)
        for name in ("build", "deploy"):
            site.key(name, ADA)

    def careless(site: Site) -> None:
        for name in ("build", "deploy"):
            site.operator.disable(site.memory[name])

    flow = Flow("careless", prepare, [Step(careless, None)])
    with prepared(flow, database_url) as (site, outcome):
        exercise(site, outcome, part(outcome), PART)
    assert any("death after commit" in line and "status=disabled" in line for line in outcome.wrong)


def test_every_flow_of_the_worker_is_in_the_matrix() -> None:
    run = {step.task for flow in FLOWS.values() for step in flow.steps if step.task}
    assert run == set(tasks.flows())


def test_the_document_counts_these_flows() -> None:
    """Copy the lines that `make crash-matrix` prints where a flow came or went."""
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    counted = re.findall(r"^(\w+): statements=\d+ .* points=\d+$", text, re.MULTILINE)
    assert sorted(counted) == sorted(FLOWS)
