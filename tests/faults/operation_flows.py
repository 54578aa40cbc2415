"""Bulk operations: what operators do with them, and a worker that carries one out."""

from dataclasses import replace

from models.operations import Selection
from tests.faults.flow import Flow, Step, command, task
from tests.faults.site import HOUR, MINUTE, POLICY, Site
from tests.world import ADA

BOB = "bob@example.com"
BULK = replace(POLICY, wave_keys=2, bulk_rate=1e7)
"""So quick that a clock that stands still does not hold a run up."""


def _keys(site: Site) -> None:
    site.account(ADA)
    site.account(BOB)
    for name, email in (("build", ADA), ("deploy", ADA), ("report", BOB)):
        site.key(name, email)
        site.later(MINUTE)
    site.work()


def _plan(site: Site) -> None:
    plan = site.operator.operations.plan(Selection(everything=True))
    site.memory["plan"] = str(plan.id)


def _planned(site: Site) -> None:
    _keys(site)
    _plan(site)


def _apply(site: Site) -> None:
    site.operator.operations.apply(site.memory["plan"])


def _applied(site: Site) -> None:
    _planned(site)
    _apply(site)
    site.queue.clear()


def _some_unfit(site: Site) -> None:
    """One key is gone and one is in rotation, since the plan was applied."""
    _applied(site)
    site.operator.delete(site.memory["build"])
    site.operator.rotate(site.memory["report"])
    site.work()


def _pause(site: Site) -> None:
    site.operator.operations.pause(site.memory["plan"])


def _paused(site: Site) -> None:
    _applied(site)
    _pause(site)


def _resume(site: Site) -> None:
    site.operator.operations.resume(site.memory["plan"])


def _cancel(site: Site) -> None:
    site.operator.operations.cancel(site.memory["plan"], "not needed")


def _withdrawn(site: Site) -> None:
    """Nobody fetched the new keys of a plan, and the mails about that waited for each other."""
    _applied(site)
    site.run("operations.advance")
    site.later(site.policy.sealed_for)
    site.run("outbox.deliver")
    site.run("rotations.advance")
    site.later(HOUR)
    site.queue.clear()


ADVANCE = Step(lambda site: site.run("operations.advance"), None, "operations.advance")

OPERATION_FLOWS = (
    Flow("bulk_plan", _keys, [command(_plan)], BULK),
    Flow("bulk_apply", _planned, [command(_apply)], BULK),
    Flow("bulk_advance", _applied, [ADVANCE], BULK),
    Flow("bulk_skipped", _some_unfit, [ADVANCE], BULK),
    Flow("bulk_pause", _applied, [command(_pause)], BULK),
    Flow("bulk_resume", _paused, [command(_resume)], BULK),
    Flow(
        "bulk_told",
        _withdrawn,
        [task("outbox.deliver")],
        replace(BULK, deliver_batch=100),
    ),
    Flow("bulk_cancel", _applied, [command(_cancel)], BULK),
)
