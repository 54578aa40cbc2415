"""Keys that others know, by command and by event, and tries of stopped keys."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from uuid import UUID

from models.errors import Refused
from models.events import AccountEvent, Action
from models.recording import Use
from models.rotation_policy import DEFAULT, RotationPolicy
from tests.faults.flow import Flow, command, task
from tests.faults.site import DAY, MINUTE, POLICY, Site
from tests.world import ADA

FOLLOW = task("keys.follow_compromises")
ISSUING = replace(
    POLICY, rotation_policies={DEFAULT: RotationPolicy(on_compromise="hold_and_issue")}
)
BOB = "bob@example.com"


def _key(site: Site) -> None:
    site.account(ADA)
    site.key("build", ADA)
    site.work()


def _issued(site: Site) -> None:
    """A rotation is under way, and nobody has fetched its successor."""
    _key(site)
    site.operator.rotate(site.memory["build"])
    site.work()


def _retired(site: Site) -> None:
    """The successor of a retired key, which may come back."""
    _key(site)
    rotation = site.operator.rotate(site.memory["build"])
    site.memory["old"], site.memory["build"] = site.memory["build"], str(rotation.new_key_id)
    claimed = site.operator.claim(site.memory["build text"])
    site.memory["build text"] = claimed.secret.reveal()
    site.later(MINUTE)
    site.use("build")
    site.run("rotations.advance")
    site.later(site.policy.rotation_overlap + DAY)
    site.run("rotations.advance")
    site.work()


def _stop(site: Site) -> None:
    site.operator.stop_compromised(site.memory["build"], "on a wiki")


def _replace(site: Site) -> None:
    got = site.operator.replace_compromised(site.memory["build"])
    site.memory["successor text"] = got.secret.reveal()


def _replace_again(site: Site) -> None:
    """Who got no answer gives the command again; if the text is gone, another one is made."""
    _stop(site)
    try:
        _replace(site)
    except Refused as refused:
        if refused.code != "already_handed_over":
            raise
        [rotation] = site.operator.rotations(state="issued")
        site.operator.reissue_rotation(str(rotation.id))
        _replace(site)


def _reported(site: Site) -> None:
    digest = sha256(site.memory["build text"].encode()).hexdigest()
    said = AccountEvent(action=Action.KEY_LEAKED, key_digest=digest, raw_type="key.leaked")
    site.receive("okta", ("new", said))
    site.run("accounts.apply_events")


def _leaked(site: Site) -> None:
    _key(site)
    _reported(site)


def _leaked_in_rotation(site: Site) -> None:
    _issued(site)
    _reported(site)


def _tried(site: Site) -> None:
    """Two owners' deleted keys, one of which others know, are tried."""
    for name, email in (("build", ADA), ("deploy", ADA), ("other", BOB)):
        if name != "deploy":
            site.account(email)
        site.key(name, email)
    site.work()
    site.operator.delete(site.memory["build"])
    site.operator.delete(site.memory["other"])
    site.operator.stop_compromised(site.memory["deploy"])
    site.run("keys.follow_compromises")
    site.work()
    site.later(timedelta(minutes=5))
    for name in ("build", "deploy", "other"):
        use = Use(UUID(site.memory[name]), site.clock.now, "192.0.2.7", refused=True)
        site.operator.report_use([use])


_LOST = "the text is shown once: an operator has another one made in its place"

COMPROMISE_FLOWS = (
    Flow(
        "compromise_command",
        _key,
        [command(_stop), command(_replace, _replace_again)],
        lost_answer=_LOST,
    ),
    Flow(
        "compromise_in_rotation",
        _issued,
        [command(_stop), command(_replace, _replace_again)],
        lost_answer=_LOST,
    ),
    Flow(
        "compromise_of_successor",
        _retired,
        [command(_stop), command(_replace, _replace_again)],
        lost_answer=_LOST,
    ),
    Flow("compromise_followed", _leaked, [FOLLOW], policy=ISSUING),
    Flow("compromise_withdraws", _leaked_in_rotation, [FOLLOW]),
    Flow("refused_told", _tried, [task("keys.tell_refused")]),
)
