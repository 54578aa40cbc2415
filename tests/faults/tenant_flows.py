"""Tenants: cut by an event, awaited, joined, released; and their members' keys settled."""

from contextlib import suppress

from models.errors import Refused
from models.events import Action, Subject
from tests.faults.flow import Flow, command, task
from tests.faults.site import DAY, HOUR, Site
from tests.world import ADA, event

BOB, CAROL = "bob@example.com", "carol@example.com"
ACME, SOURCE = "Acme", "github"
HELD = event(Action.DISABLED, subject=Subject(format="tenant", value="42"), event_id="t1")


def _tenant(site: Site) -> None:
    """Two accounts with seven keys in a tenant, and one beside it."""
    site.operator.tenants.create(ACME, known_as=[(SOURCE, "42")])
    _members(site)


def _members(site: Site) -> None:
    for email, keys in ((ADA, 3), (BOB, 4), (CAROL, 1)):
        site.account(email)
        for n in range(keys):
            site.key(f"key {n} of {email}", email, 90 * DAY)
    for email in (ADA, BOB):
        site.operator.tenants.assign(email, ACME)
    site.work()


def _cut(site: Site) -> None:
    site.receive(SOURCE, ("cut", HELD))


def _held(site: Site) -> None:
    """The tenant was held, and no worker has looked at its members' keys."""
    _tenant(site)
    _cut(site)
    site.run("accounts.apply_events")


def _settled(site: Site) -> None:
    _held(site)
    site.work()


def _doomed(site: Site) -> None:
    """Its source deleted the tenant so long ago that its members' keys go now; one came later."""
    _tenant(site)
    site.later(HOUR)
    site.receive(SOURCE, ("gone", event(Action.DELETED, subject=HELD.subject)))
    site.work()
    site.later(HOUR)
    site.operator.tenants.assign(CAROL, ACME)
    site.work()
    site.later(site.policy.deletion_delay)


def _unlinked(site: Site) -> None:
    """The tenant is there, and nobody has said what its source calls it."""
    site.operator.tenants.create(ACME)
    _members(site)


def _link(site: Site) -> None:
    with suppress(Refused):  # identity_taken: it was linked before
        site.operator.tenants.link(ACME, SOURCE, "42")


def _create(site: Site) -> None:
    with suppress(Refused):  # tenant_exists: it was created before
        site.operator.tenants.create(ACME, known_as=[(SOURCE, "42")])


APPLY, SETTLE = task("accounts.apply_events"), task("keys.settle")

TENANT_FLOWS = (
    Flow("tenant_event", _tenant, [command(_cut), APPLY, SETTLE]),
    Flow("tenant_settle", _held, [SETTLE]),
    Flow("tenant_awaited", _unlinked, [command(_cut), APPLY, command(_link), SETTLE]),
    Flow("tenant_create", _cut, [APPLY, command(_create)]),
    Flow(
        "tenant_disable",
        _tenant,
        [command(lambda site: site.operator.tenants.disable(ACME)), SETTLE],
    ),
    Flow(
        "tenant_enable",
        _settled,
        [command(lambda site: site.operator.tenants.enable(ACME, source=SOURCE)), SETTLE],
    ),
    Flow("tenant_delete_due", _doomed, [task("keys.delete_due")]),
    Flow(
        "tenant_join",
        _settled,
        [command(lambda site: site.operator.tenants.assign(CAROL, ACME)), SETTLE],
    ),
    Flow(
        "tenant_leave",
        _settled,
        [command(lambda site: site.operator.tenants.assign(ADA, None)), SETTLE],
    ),
)
