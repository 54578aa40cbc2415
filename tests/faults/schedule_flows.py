"""Rotations by policy, and secrets that are sealed anew."""

from dataclasses import replace
from functools import partial
from uuid import UUID

from models import rotation_choice, rotations
from models.base import Tx
from models.key_text import Peppers
from models.rotation_policy import RotationPolicy
from models.rotation_times import parse_rotate
from models.sealing import Sealer
from tests.faults.flow import Flow, command, task
from tests.faults.site import DAY, KEYRING, MINUTE, POLICY, Site
from tests.world import ADA

EVE = "eve@example.com"
SCHEDULED = replace(
    POLICY,
    rotation_policies={
        "default": RotationPolicy(),
        "life": RotationPolicy(rotate=parse_rotate("2/3")),
    },
    rotation_starts=2,
)
"""Two rotations may start in a minute, so that a flow needs several runs for three keys."""

START_DUE = task("rotations.start_due")
RESEAL = task("upkeep.reseal")


def _keys(site: Site) -> None:
    for email in (ADA, EVE):
        site.account(email)
        _choose(site, email)
    for name in ("build", "deploy"):
        site.key(name, ADA)
    site.key("held", EVE)
    site.key("brief", ADA, 30 * MINUTE)
    site.work()


def _choose(site: Site, email: str = ADA) -> None:
    choose = partial(rotation_choice.for_account, account=email, name="life", actor="op")
    site.operator.database.run(lambda tx: choose(tx, policy=site.policy))


def _choose_for_keys(site: Site) -> None:
    for name, policy in (("build", "life"), ("deploy", "default")):
        choose = partial(rotation_choice.for_key, key_id=site.memory[name], name=policy, actor="op")
        site.operator.database.run(lambda tx, choose=choose: choose(tx, policy=site.policy))  # type: ignore[misc]


def _planned(site: Site) -> None:
    _keys(site)
    site.run("rotations.start_due")


def _brief_due(site: Site) -> None:
    """A key whose time has come, and that lives too short."""
    _planned(site)
    site.later(25 * MINUTE)


def _due(site: Site) -> None:
    """All are due: of these one is held."""
    _planned(site)
    site.operator.disable_account(EVE)
    site.later(80 * DAY)
    for flow in ("keys.expire_due", "notices.plan", "outbox.deliver"):
        site.run(flow)
    site.work()


def _sealed_before(site: Site) -> None:
    """Three successors wait under the key-encryption key that was current before."""
    site.account(ADA)
    before = Sealer({1: b"k" * 32})
    for name in ("build", "deploy", "serve"):
        key_id = UUID(site.key(name, ADA))
        site.database.run(partial(_rotate, key_id=key_id, sealer=before, site=site))
    site.work()


def _rotate(tx: Tx, key_id: UUID, sealer: Sealer, site: Site) -> None:
    peppers: Peppers = KEYRING.peppers
    rotations.request(tx, key_id, actor="op", policy=site.policy, sealer=sealer, peppers=peppers)


def _choosable(site: Site) -> None:
    site.account(ADA)
    for name in ("build", "deploy"):
        site.key(name, ADA)
    site.work()


SCHEDULE_FLOWS = (
    Flow("policy_of_account", _choosable, [command(_choose)], SCHEDULED),
    Flow("policy_of_keys", _choosable, [command(_choose_for_keys)], SCHEDULED),
    Flow("schedule_planned", _keys, [START_DUE], SCHEDULED),
    Flow("schedule_refused", _brief_due, [START_DUE], SCHEDULED),
    Flow("schedule_started", _due, [START_DUE], SCHEDULED),
    Flow("secrets_resealed", _sealed_before, [RESEAL]),
)
