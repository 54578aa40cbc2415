"""Rotations: what its people do, and every step that time or a use lets it take."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from models.errors import Refused
from models.events import Action
from models.rotation_policy import RotationPolicy
from tests.faults.flow import Flow, command, task
from tests.faults.site import DAY, HOUR, MINUTE, POLICY, Site
from tests.world import ADA, event

ADVANCE = task("rotations.advance")


def _key(site: Site, life: timedelta = 90 * DAY) -> None:
    site.account(ADA)
    site.key("build", ADA, life)
    site.work()


def _rotate(site: Site) -> None:
    rotation = site.operator.rotate(site.memory["build"], idempotency_key="once")
    site.memory["rotation"], site.memory["successor"] = str(rotation.id), str(rotation.new_key_id)


def _claim(site: Site) -> None:
    claimed = site.operator.claim(site.memory["build text"])
    site.memory["successor text"] = claimed.secret.reveal()


def _claim_again(site: Site) -> None:
    """Who got no answer tries again; if the text is gone, an operator reissues it for them."""
    try:
        _claim(site)
    except Refused as refused:
        if refused.code != "already_claimed":
            raise
        _reissue(site)
        _claim(site)


def _claim_twice(site: Site) -> None:
    with suppress(Refused):  # already_claimed, with an alarm: that is what is looked at here
        site.operator.claim(site.memory["build text"])


def _issued(site: Site, life: timedelta = 90 * DAY) -> None:
    _key(site, life)
    _rotate(site)
    site.work()


def _claimed(site: Site, life: timedelta = 90 * DAY) -> None:
    _issued(site, life)
    _claim(site)
    site.work()


def _used(site: Site) -> None:
    _claimed(site)
    site.later(MINUTE)
    site.use("successor")


def _draining(site: Site) -> None:
    _used(site)
    site.run("rotations.advance")
    site.work()


def _quiet(site: Site) -> None:
    """The old key was quiet long enough."""
    _draining(site)
    site.later(site.policy.rotation_overlap)


def _busy(site: Site) -> None:
    """The old key is in use at the deadline."""
    _draining(site)
    site.later(site.policy.rotation_overlap - HOUR)
    site.use("build")
    site.later(HOUR)


def _blocked(site: Site) -> None:
    _busy(site)
    site.run("rotations.advance")
    site.work()


def _retired(site: Site) -> None:
    _quiet(site)
    site.run("rotations.advance")
    site.work()


def _undo_over(site: Site) -> None:
    _retired(site)
    site.later(site.policy.undo_for)


def _ending(site: Site) -> None:
    """The old key has a day left."""
    _draining(site)
    site.later(site.policy.rotation_overlap - DAY)


def _failed(site: Site) -> None:
    """A step raised an error, and what it stumbled over has gone since."""
    _used(site)
    site.server.execute(
        "UPDATE keyturn.rotations SET blocked_reason = 'step_failed',"
        " next_check_at = next_check_at + interval '1 year'"
    )


def _successor_gone(site: Site) -> None:
    """The old key was retired, and its successor deleted by mistake."""
    _retired(site)
    site.operator.delete(site.memory["successor"])
    site.work()


def _hold(site: Site) -> None:
    site.later(HOUR)
    site.receive("okta", ("hold", event(Action.DISABLED)))
    for flow in ("accounts.apply_events", "keys.settle"):
        site.run(flow)


def _lift(site: Site) -> None:
    site.later(HOUR)
    site.receive("okta", ("lift", event(Action.ENABLED)))
    for flow in ("accounts.apply_events", "keys.settle"):
        site.run(flow)


def _held(site: Site) -> None:
    _draining(site)
    _hold(site)


def _held_unclaimed(site: Site) -> None:
    _issued(site)
    _hold(site)


def _released(site: Site) -> None:
    _held(site)
    site.run("rotations.advance")
    _lift(site)


def _released_unclaimed(site: Site) -> None:
    _held_unclaimed(site)
    site.run("rotations.advance")
    _lift(site)


def _came_and_went(site: Site) -> None:
    """The account was held and freed between two looks."""
    _held(site)
    _lift(site)


def _unclaimed(site: Site) -> None:
    _issued(site)
    site.later(site.policy.sealed_for)


def _old_ended(site: Site) -> None:
    """The successor is in use, and the old key has come to its own end."""
    _claimed(site, 12 * HOUR)
    site.use("successor")
    site.run("rotations.advance")
    site.later(12 * HOUR)
    site.run("keys.expire_due")
    site.work()


def _old_deleted(site: Site) -> None:
    _draining(site)
    site.operator.delete(site.memory["build"])


def _successor_deleted(site: Site) -> None:
    _claimed(site)
    site.operator.delete(site.memory["successor"])


def _rotate_again(site: Site) -> None:
    site.operator.rotate(site.memory["successor"])


def _confirm(site: Site) -> None:
    site.operator.confirm_rotation(site.memory["rotation"])


def _cancel(site: Site) -> None:
    site.operator.cancel_rotation(site.memory["rotation"], "not needed")


def _undo(site: Site) -> None:
    site.operator.undo_rotation(site.memory["rotation"], "still needed")


def _reissue(site: Site) -> None:
    site.operator.reissue_rotation(site.memory["rotation"])


def _retry(site: Site) -> None:
    site.operator.retry_rotation(site.memory["rotation"])


_IMPATIENT = replace(POLICY, rotation_policies={"default": RotationPolicy(in_use="retire")})

ROTATION_FLOWS = (
    Flow("rotate", _key, [command(_rotate)]),
    Flow("rotate_again", _retired, [command(_rotate_again)]),
    Flow(
        "claim",
        _issued,
        [command(_claim, _claim_again)],
        lost_answer="the text is shown once: an operator reissues it",
    ),
    Flow(
        "claim_twice",
        _claimed,
        [command(_claim_twice)],
        lost_answer="each try is audited; the mail goes once",
    ),
    Flow("confirm", _claimed, [command(_confirm)]),
    Flow("confirm_blocked", _blocked, [command(_confirm)]),
    Flow("cancel", _issued, [command(_cancel)]),
    Flow("undo", _retired, [command(_undo)]),
    Flow("undo_without_successor", _successor_gone, [command(_undo)]),
    Flow("reissue", _claimed, [command(_reissue)]),
    Flow("retry", _failed, [command(_retry)]),
    Flow("rotation_confirmed", _used, [ADVANCE]),
    Flow("rotation_ending", _ending, [ADVANCE]),
    Flow("rotation_retired_in_use", _busy, [ADVANCE], policy=_IMPATIENT),
    Flow("rotation_retired", _quiet, [ADVANCE]),
    Flow("rotation_blocked", _busy, [ADVANCE]),
    Flow("rotation_completed", _undo_over, [ADVANCE]),
    Flow("rotation_old_ended", _old_ended, [ADVANCE]),
    Flow("rotation_old_deleted", _old_deleted, [ADVANCE]),
    Flow("rotation_unclaimed", _unclaimed, [ADVANCE]),
    Flow("rotation_successor_deleted", _successor_deleted, [ADVANCE]),
    Flow("rotation_paused", _held, [ADVANCE]),
    Flow("rotation_secret_destroyed", _held_unclaimed, [ADVANCE]),
    Flow("rotation_resumed", _released, [ADVANCE]),
    Flow("rotation_resumed_late", _came_and_went, [ADVANCE]),
    Flow("rotation_cancelled", _released_unclaimed, [ADVANCE]),
)
