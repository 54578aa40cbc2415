"""Commands on keys and accounts, and what happens to keys by time."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from models.errors import Refused
from models.events import Action, Subject
from models.recording import Use
from tests.faults.flow import Flow, command, task
from tests.faults.site import DAY, MINUTE, POLICY, Site
from tests.world import ADA, event

BOB = "bob@example.com"


def _key(site: Site) -> None:
    site.account(ADA)
    site.key("build", ADA)
    site.work()


def _create(site: Site) -> None:
    site.key("new", ADA)


def _create_again(site: Site) -> None:
    """Who has no text of a key that is there deletes it, and creates another."""
    for key in site.operator.keys(account=ADA, status="active"):
        if key.name == "new":
            site.operator.delete(key.id, "its text was lost")
    _create(site)


def _disabled_key(site: Site) -> None:
    _key(site)
    site.operator.disable(site.memory["build"], "too loud")
    site.work()


def _many(site: Site, number: int = 8, life: timedelta = 90 * DAY) -> None:
    for email in (ADA, BOB):
        site.account(email)
        for n in range(number // 2):
            site.key(f"key {n}", email, life)
    site.work()


def _held(site: Site) -> None:
    _many(site)
    site.operator.disable_account(ADA)
    site.work()


def _ended(site: Site) -> None:
    _many(site, life=10 * MINUTE)
    site.key("lasting", ADA)
    site.work()
    site.later(10 * MINUTE)


def _unsettled(site: Site) -> None:
    """Two accounts were held, and no worker has looked at their keys."""
    _many(site, 14)
    site.receive("okta", *[(f"d{n}", event(Action.DISABLED, e)) for n, e in enumerate((ADA, BOB))])
    site.run("accounts.apply_events")


def _doomed(site: Site) -> None:
    """Two accounts were deleted by their source so long ago that their keys go now."""
    _many(site, 10)
    site.receive("okta", *[(f"d{n}", event(Action.DELETED, e)) for n, e in enumerate((ADA, BOB))])
    site.work()
    site.later(site.policy.deletion_delay)


def _old(site: Site) -> None:
    """Keys, messages and events whose time of keeping is over."""
    _many(site, life=170 * DAY)
    site.receive("okta", ("d1", event(Action.DISABLED, ADA)), ("d2", event(Action.NONE, ADA)))
    site.work()
    for key in site.operator.keys(account=BOB):
        site.operator.report_use([Use(key.id, site.clock.now)])
        site.operator.delete(key.id)
    site.work()
    site.later(site.policy.purge_after)


def _create_account(site: Site) -> None:
    with suppress(Refused):  # user_exists: it was created before
        site.operator.create_account(
            BOB, "member", identities=[Subject(format="opaque", issuer="okta", value="u2")]
        )


def _link(site: Site) -> None:
    with suppress(Refused):  # identity_taken: it was linked before
        site.operator.link_account(ADA, Subject(format="opaque", issuer="okta", value="u1"))


KEY_FLOWS = (
    Flow(
        "create",
        _key,
        [command(_create, _create_again)],
        lost_answer="a key may be there whose text nobody has: it is deleted, and another created",
    ),
    Flow("key_disable", _key, [command(lambda site: site.operator.disable(site.memory["build"]))]),
    Flow(
        "key_enable",
        _disabled_key,
        [command(lambda site: site.operator.enable(site.memory["build"]))],
    ),
    Flow("key_delete", _key, [command(lambda site: site.operator.delete(site.memory["build"]))]),
    Flow("use_reported", _key, [command(lambda site: site.use("build"))], lost_answer="counted"),
    Flow("account_create", _key, [command(_create_account)]),
    Flow("account_link", _key, [command(_link)]),
    Flow("account_disable", _many, [command(lambda site: site.operator.disable_account(ADA))]),
    Flow("account_enable", _held, [command(lambda site: site.operator.enable_account(ADA))]),
    Flow("settle_batches", _unsettled, [task("keys.settle")]),
    Flow("expire", _ended, [task("keys.expire_due")]),
    Flow("delete_due", _doomed, [task("keys.delete_due")]),
    Flow(
        "deletions_confirm",
        _doomed,
        [command(lambda site: site.operator.confirm_deletions("okta")), task("keys.delete_due")],
        policy=replace(POLICY, burst_accounts=1),
    ),
    Flow("retention", _old, [task("upkeep.retention")]),
)
