"""Rotations brought to each stage of their life, and from any of them to their end."""

from collections.abc import Callable
from typing import Final

from models.rotations import Rotation
from tests.models.scene import Scene

Stage = Callable[[Scene], Rotation]


def unclaimed(scene: Scene) -> Rotation:
    """Its new key waits to be fetched."""
    return scene.request(scene.key())


def claimed(scene: Scene) -> Rotation:
    """Its new key was fetched, and never used."""
    rotation = unclaimed(scene)
    scene.claimed(rotation.old_key_id)
    return scene.rotation(rotation)


def blocked(scene: Scene) -> Rotation:
    """Its old key is in use at the deadline."""
    rotation = scene.draining()
    assert rotation.retire_at is not None
    scene.clock.move_to(rotation.retire_at)
    scene.use(rotation.old_key_id)
    scene.advance()
    return scene.rotation(rotation)


def undone(scene: Scene) -> Rotation:
    """Its old key was retired, and brought back."""
    return scene.undo(scene.retired())


def cancelled(scene: Scene) -> Rotation:
    """An operator ended it."""
    return scene.cancel(unclaimed(scene))


def completed(scene: Scene) -> Rotation:
    """Its old key was retired, and deleted."""
    rotation = scene.retired()
    assert rotation.undo_until is not None
    scene.clock.move_to(rotation.undo_until)
    scene.advance()
    return scene.rotation(rotation)


LIVE: Final[dict[str, Stage]] = {
    "unclaimed": unclaimed,
    "claimed": claimed,
    "draining": lambda scene: scene.draining(),
    "retired": lambda scene: scene.retired(),
}
STAGES: Final[dict[str, Stage]] = LIVE | {
    "blocked": blocked,
    "undone": undone,
    "cancelled": cancelled,
    "completed": completed,
}


def finish(scene: Scene, rotation: Rotation) -> Rotation:
    """Its people do what is left to them, and time passes: it must end as it should."""
    now = scene.rotation(rotation)
    if now.claimable:
        scene.claimed(now.old_key_id)
    if now.state == "issued":
        scene.use(now.new_key_id)
        scene.advance()
        now = scene.rotation(rotation)
    if now.state == "draining":
        assert now.retire_at is not None
        scene.clock.move_to(now.retire_at)
        scene.advance()
        now = scene.rotation(rotation)
    assert now.state == "retired"
    assert now.undo_until is not None
    scene.clock.move_to(now.undo_until)
    scene.advance()
    now = scene.rotation(rotation)
    assert now.state == "completed"
    assert scene.find_key(now.old_key_id).status == "deleted"
    assert scene.find_key(now.new_key_id).status == "active"
    return now
