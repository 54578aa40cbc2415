"""New keys that go to a sink by themselves: planned, delivered, promoted, given up, ended."""

from dataclasses import replace

from models.policy import Policy
from models.rotation_policy import RotationPolicy
from tests.faults.flow import Flow, Verb, command, task
from tests.faults.site import POLICY, Site
from tests.world import ADA

HAND_OVER = task("rotations.hand_over")


def _to(sink: str) -> Policy:
    return replace(POLICY, rotation_policies={"default": RotationPolicy(sink=sink)})


def _key(site: Site) -> None:
    site.account(ADA)
    site.key("build", ADA)
    site.work()
    site.run("rotations.hand_over")  # from now on the schedule has it


def _rotate(site: Site) -> None:
    rotation = site.operator.rotate(site.memory["build"], idempotency_key="once")
    site.memory["rotation"], site.memory["successor"] = str(rotation.id), str(rotation.new_key_id)


def _issued(site: Site) -> None:
    """The successor is there, and nobody has rung yet."""
    _key(site)
    _rotate(site)
    site.run("outbox.deliver")
    site.queue.clear()


def _undecided(site: Site) -> None:
    """A product asked, which does not know the policies; nobody has rung yet."""
    _key(site)
    known, site.operator.policy = site.operator.policy, replace(POLICY, rotation_policies={})
    _rotate(site)
    site.operator.policy = known
    site.queue.clear()


def _delivered(site: Site) -> None:
    _issued(site)
    site.run("rotations.hand_over")
    site.work()


def _confirmed(site: Site) -> None:
    _delivered(site)
    site.use("successor")
    site.run("rotations.advance")
    site.work()


def _after(verb: Verb) -> Verb:
    """The issue, and then this, before the worker comes to it."""

    def prepare(site: Site) -> None:
        _issued(site)
        verb(site)
        site.work()

    return prepare


def _cancel(site: Site) -> None:
    site.operator.cancel_rotation(site.memory["rotation"], "not needed")
    site.queue.clear()


def _claim(site: Site) -> None:
    site.operator.claim(site.memory["build text"])


def _retry(site: Site) -> None:
    site.operator.retry_rotation(site.memory["rotation"])


HAND_OVER_FLOWS = (
    Flow("rotate_to_sink", _key, [command(_rotate)], policy=_to("shelf")),
    Flow("hand_over", _issued, [HAND_OVER], policy=_to("shelf")),
    Flow("hand_over_undecided", _undecided, [HAND_OVER], policy=_to("shelf")),
    Flow("hand_over_told", _issued, [HAND_OVER], policy=_to("teller")),
    Flow("hand_over_refused", _issued, [HAND_OVER], policy=_to("wall")),
    Flow("hand_over_unknown_sink", _issued, [HAND_OVER], policy=_to("nowhere")),
    Flow("hand_over_promoted", _confirmed, [HAND_OVER], policy=_to("cabinet")),
    Flow("hand_over_cancelled", _after(_cancel), [HAND_OVER], policy=_to("shelf")),
    Flow("hand_over_claimed", _after(_claim), [HAND_OVER], policy=_to("shelf")),
    Flow("hand_over_retried", _delivered, [command(_retry)], policy=_to("wall")),
)
