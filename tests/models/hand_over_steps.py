"""A sink that a test commands, and the steps of a worker that hands over to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from models import hand_overs
from models.base import Database
from models.hand_overs import Leased
from models.key_text import Secret
from models.policy import Policy
from models.rotation_policy import RotationPolicy
from models.rotations import Rotation
from models.sinks import HandOver, Outcome, Promoting, Told
from tests.models.scene import Scene

TAKEN = Outcome(state="taken", receipt="on the shelf")
IN_FRONT = Outcome(state="taken", receipt="in front")
BUSY = Outcome(state="retry", error="the shelf is busy")
BROKEN = Outcome(state="failed", error="there is no shelf")


@dataclass
class Shelf:
    """Takes what it is given, or answers as it is told; keeps the text by the rotation."""

    outcome: Outcome = TAKEN
    messages: Sequence[Told] = ()
    texts: dict[UUID, str] = field(default_factory=dict)
    seen: list[HandOver] = field(default_factory=list)

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        self.seen.append(hand_over)
        if self.outcome.state != "taken":
            return self.outcome
        self.texts[hand_over.rotation_id] = secret.reveal()
        return Outcome(state="taken", receipt="on the shelf", messages=self.messages)


@dataclass
class TwoShelves(Shelf):
    """Puts a key aside until its rotation is confirmed."""

    promotion: Outcome = IN_FRONT
    promoted: list[UUID] = field(default_factory=list)

    def promote(self, hand_over: HandOver) -> Outcome:
        if self.promotion.state == "taken":
            self.promoted.append(hand_over.rotation_id)
        return self.promotion


def to_shelf(sink: str = "shelf") -> Policy:
    """A policy by which every new key goes to one sink."""
    return Policy(rotation_policies={"default": RotationPolicy(sink=sink)})


def issued(scene: Scene) -> Rotation:
    """A rotation whose key goes to the shelf."""
    scene.policy = to_shelf()
    return scene.request(scene.key())


def lease(scene: Scene) -> Leased | None:
    """Claim what has been due for the longest, if anything is."""
    rotation_id = scene.database.run(hand_overs.due)
    if rotation_id is None:
        return None
    return scene.database.run(lambda tx: hand_overs.lease(tx, rotation_id, scene.policy))


def leased(scene: Scene) -> Leased:
    """The same where something must be."""
    found = lease(scene)
    assert found is not None
    return found


def settle(scene: Scene, lease: Leased, outcome: Outcome, *, promotes: bool = False) -> bool:
    """Write down what became of it."""
    database: Database = scene.database
    return database.run(
        lambda tx: hand_overs.settle(tx, lease, outcome, scene.policy, promotes=promotes)
    )


def work(scene: Scene, sink: Shelf) -> int:
    """Hand over all that is due; how many tries that took."""
    for tries in range(100):
        found = lease(scene)
        if found is None:
            if scene.database.run(hand_overs.due) is None:
                return tries
            continue
        outcome = hand_overs.attempt(sink, found, scene.sealer)
        settle(scene, found, outcome, promotes=isinstance(sink, Promoting))
    raise AssertionError("this does not end")


def row(scene: Scene, rotation: Rotation) -> dict[str, object]:
    """The hand-over as it stands."""
    [found] = scene.sql("SELECT * FROM keyturn.hand_overs WHERE rotation_id = :id", id=rotation.id)
    return dict(found)
