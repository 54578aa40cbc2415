"""A database in which everything that can be has been, and nothing is wrong.

Keys in every state, rotations in every state, events of every outcome, notices and messages: all
made by the verbs that make them in earnest, and then brought up to date. Keys are found by name.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from freezegun import freeze_time
from freezegun.api import FrozenDateTimeFactory

from models import compromise, deletions, holds, inbox, outbox
from models.base import Database
from models.events import Action, Certainty, Subject
from models.holds import Cause
from models.inbox import Received, Rejection, Source
from models.messages import Delivery
from models.operations import Selection
from models.rotations import Rotation
from models.tenants_desk import Tenants
from tests.models.bulk import Bulk
from tests.models.hand_over_steps import Shelf, to_shelf, work
from tests.models.notice_verbs import deliver, expire, plan
from tests.models.scene import DAY, HOUR, MINUTE, Scene
from tests.world import World, event

BOB, CAROL, DAVE = "bob@example.com", "carol@example.com", "dave@example.com"
ERIN = "erin@example.com"
FRANK, GRACE = "frank@example.com", "grace@example.com"
HELD, FREE = "Held", "Free"
DISABLED, ENABLED = Action.DISABLED, Action.ENABLED


def build(scene: Scene) -> None:
    """Fifteen days in the life of an installation."""
    world = World(scene.database, scene.policy, scene.peppers)
    _accounts(scene, world)
    for name in ("active", "unused"):
        scene.key(name=name)
    scene.key(12 * DAY, name="expired")
    scene.key(20 * DAY, name="warned")
    scene.delete(scene.key(name="deleted"))
    _hand_over(scene, "completed")
    scene.request(scene.key(name="unclaimed"))
    scene.cancel(scene.request(scene.key(name="twice")))
    run(scene)
    _until(scene, 8 * DAY)
    _hand_over(scene, "retired")
    undone = _hand_over(scene, "undone")
    blocked = _hand_over(scene, "blocked")
    _until(scene, 7 * DAY - HOUR)
    scene.use(blocked.old_key_id)
    _until(scene, HOUR)
    _hand_over(scene, "draining")
    scene.undo(undone)
    scene.claimed(scene.request(scene.key(name="claimed")).old_key_id)
    scene.reissue(scene.request(scene.key(name="issued")))
    scene.request(find(scene, "twice"))
    _held_keys(scene)
    _bulk(scene)
    _sunk(scene)
    scene.use(find(scene, "active"))
    _until(scene, 3 * HOUR)


@contextmanager
def reopened(built: Scene, at: datetime, database_url: str) -> Iterator[Scene]:
    """A copy of a scene's database, at the moment at which the scene was left."""
    with freeze_time(at) as clock:
        assert isinstance(clock, FrozenDateTimeFactory)
        scene = copy.copy(built)
        scene.clock, scene.texts = clock, dict(built.texts)
        scene.database = Database(database_url, clock=lambda: datetime.now(UTC))
        try:
            yield scene
        finally:
            scene.database.close()


def find(scene: Scene, name: str) -> UUID:
    """The first key of this name: of a family, the one that it began with."""
    [row] = scene.sql(
        "SELECT id FROM keyturn.api_keys WHERE name = :name AND family_id = id", name=name
    )
    found: UUID = row["id"]
    return found


def run(scene: Scene) -> None:
    """One run of every flow."""
    world = World(scene.database, scene.policy, scene.peppers)
    world.apply()
    world.settle()
    expire(scene)
    scene.database.run(lambda tx: deletions.step(tx, scene.policy))
    scene.advance()
    plan(scene)
    deliver(scene)
    with scene.database.begin() as tx:
        leased = outbox.lease(tx, outbox.EVENTS, scene.policy)
        outbox.settle(tx, leased, [Delivery(id=m.id, state="sent") for m in leased.messages])


def _until(scene: Scene, later: timedelta) -> None:
    """Move on, with a run of every flow each six hours and at the end."""
    while later > timedelta(0):
        step = min(later, 6 * HOUR)
        scene.later(step)
        run(scene)
        later -= step


def _accounts(scene: Scene, world: World) -> None:
    """Accounts that their sources disabled, restored and deleted, and events of every outcome."""
    for email, name in ((BOB, "held"), (CAROL, "restored"), (DAVE, "doomed")):
        scene.key(account=scene.account(email), name=name)
    _tenants(scene, world)
    world.receive(event(DISABLED, BOB, event_id="1", at=scene.now()))
    world.receive(event(DISABLED, CAROL, event_id="2"))
    world.receive(event(Action.DELETED, DAVE, event_id="3"))
    world.receive(event(DISABLED, "nobody@example.com", event_id="4"))
    world.receive(event(ENABLED, BOB, certainty=Certainty.HINT))
    run(scene)
    scene.later(MINUTE)
    world.receive(event(ENABLED, BOB, at=scene.now() - HOUR))
    world.receive(event(ENABLED, CAROL, event_id="5"))
    rejected = Received("d0", Rejection("not_json", "it ends early"), {}, b"{")
    scene.database.run(lambda tx: inbox.accept(tx, Source("okta", "okta"), [rejected]))
    run(scene)
    assert sorted(world.states()) == [
        *("done", "done", "done", "done", "done"),
        *("parked", "rejected", "stale", "waiting_for_account", "waiting_for_account"),
    ]


def _tenants(scene: Scene, world: World) -> None:
    """Two tenants: one is held, with a member; somebody has left it for the other."""
    desk = Tenants(scene.database, scene.policy, "op")
    for name in (HELD, FREE):
        desk.create(name, known_as=[("okta", name)])
    for email, name in ((FRANK, "member"), (GRACE, "left")):
        scene.key(account=scene.account(email), name=name)
        desk.assign(email, HELD)
    for value in (HELD, "nobody's"):
        world.receive(event(DISABLED, subject=Subject(format="tenant", value=value)))
    run(scene)
    desk.assign(GRACE, FREE)


def _hand_over(scene: Scene, name: str) -> Rotation:
    """A rotation whose successor was fetched and used."""
    rotation = scene.request(scene.key(name=name))
    scene.claimed(rotation.old_key_id)
    scene.use(rotation.new_key_id)
    scene.advance()
    return rotation


def _bulk(scene: Scene) -> None:
    """Keys that were rotated by one plan."""
    account = scene.account(ERIN)
    for name in ("bulk", "bulk too"):
        scene.key(account=account, name=name)
    bulk = Bulk(scene)
    plan = bulk.applied(Selection(account=account))
    bulk.work()
    assert bulk.find(plan).state == "completed"


def _sunk(scene: Scene) -> None:
    """A key that a sink has taken."""
    policy, scene.policy = scene.policy, to_shelf()
    scene.request(scene.key(name="sunk"))
    assert work(scene, Shelf()) == 1
    scene.policy = policy


def _held_keys(scene: Scene) -> None:
    """Keys that were disabled by themselves: one still is, one not, one is known to others."""
    scene.hold(key=scene.key(name="disabled"))
    freed = scene.key(name="freed")
    scene.hold(key=freed)
    scene.later(2 * MINUTE)
    scene.lift(key=freed)
    leaked = scene.key(name="leaked")
    scene.claimed(scene.request(leaked).old_key_id)
    scene.hold(key=leaked, kind="compromised")
    _replaced(scene, scene.key(name="known"))


def _replaced(scene: Scene, key: UUID) -> None:
    """An operator stopped a key that others know, and its successor waits."""
    cause = Cause(source="operator", kind="compromised", actor="op")
    with scene.database.begin() as tx:
        holds.lock_accounts(tx, [scene.owner])
        compromise.stop(tx, key, cause, issue=True, policy=scene.policy)
    scene.database.run(
        lambda tx: compromise.follow(
            tx, key, policy=scene.policy, sealer=scene.sealer, peppers=scene.peppers
        )
    )
