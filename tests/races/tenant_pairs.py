"""Pairs in which a tenant is held or freed, while its accounts come, go, and get keys."""

from typing import Final

from models import inbox
from models.events import Action, Subject
from models.inbox import Received, Source
from tests.races.sides import (
    Pair,
    advance,
    apply,
    apply_and_settle,
    create,
    cut,
    disable,
    flow,
    request,
    settle,
)
from tests.races.stage import DAY, HOUR, Actor, Stage
from tests.world import ADA, event

ACME = "Acme"


def said(stage: Stage, action: Action) -> None:
    """An event about the tenant that no worker has looked at yet."""
    subject = Subject(format="tenant", value="42")
    one = Received(f"t {action}", event(action, subject=subject), {}, b"")
    stage.keeper.database.run(lambda tx: inbox.accept(tx, Source("okta", "okta"), [one]))


def founded(stage: Stage) -> None:
    """A tenant that is about to be held, and nobody in it."""
    stage.keeper.operator.tenants.create(ACME, known_as=[("okta", "42")])
    said(stage, Action.DISABLED)


def joined(stage: Stage) -> None:
    """The same, with Ada in it."""
    founded(stage)
    stage.keeper.operator.tenants.assign(ADA, ACME)


def held(stage: Stage) -> None:
    """It is held, and no key of its members was settled."""
    joined(stage)
    stage.keeper.run("accounts.apply_events")


def freed(stage: Stage) -> None:
    """It was held, its keys are stopped, and it is about to be freed."""
    held(stage)
    stage.keeper.run("keys.settle")
    said(stage, Action.ENABLED)


def long_deleted(stage: Stage) -> None:
    """Its source deleted it so long ago that its members' keys go now."""
    with stage.ago(8 * DAY) as operator:
        operator.tenants.create(ACME, known_as=[("okta", "42")])
        operator.tenants.assign(ADA, ACME)
    with stage.ago(8 * DAY - HOUR):
        said(stage, Action.DELETED)
        stage.keeper.run("accounts.apply_events")


def nameless(stage: Stage) -> None:
    """An event about a tenant that nobody has given a name yet; Ada is in it."""
    stage.keeper.operator.tenants.create(ACME)
    stage.keeper.operator.tenants.assign(ADA, ACME)
    said(stage, Action.DISABLED)


def join(stage: Stage, actor: Actor) -> None:
    actor.operator.tenants.assign(ADA, ACME)


def leave(stage: Stage, actor: Actor) -> None:
    actor.operator.tenants.assign(ADA, None)


def enable_deleted(stage: Stage, actor: Actor) -> None:
    actor.operator.tenants.enable(ACME, source="okta", kind="deleted")


def link(stage: Stage, actor: Actor) -> None:
    actor.operator.tenants.link(ACME, "okta", "42")


def works(stage: Stage) -> None:
    """Nothing holds the account any more."""
    assert not stage.keeper.operator.account(ADA).held
    assert stage.keeper.verify(stage.texts[stage.key])


def issued(stage: Stage) -> None:
    """A rotation whose secret is still to be fetched, and its tenant about to be held."""
    stage.issued(HOUR)
    joined(stage)


TENANT_PAIRS: Final = (
    Pair("tenant-join", founded, apply_and_settle, join, cut),
    Pair("tenant-leave", joined, apply_and_settle, leave, works),
    Pair("tenant-create", joined, apply_and_settle, create, cut),
    Pair("tenant-request", joined, apply_and_settle, request, cut),
    Pair("tenant-advance", issued, apply, advance, cut),
    Pair("tenant-disable", joined, apply_and_settle, disable, cut),
    Pair("tenant-enable-settle", freed, apply, settle, works),
    Pair("tenant-enable-leave", freed, apply_and_settle, leave, works),
    Pair("tenant-settle-settle", held, settle, settle, cut),
    Pair("tenant-settle-leave", held, settle, leave, works),
    Pair("tenant-settle-create", held, settle, create, cut),
    Pair("tenant-delete-due-enable", long_deleted, flow("keys.delete_due"), enable_deleted),
    Pair("tenant-delete-due-leave", long_deleted, flow("keys.delete_due"), leave),
    Pair("tenant-link", nameless, apply, link, cut),
)
