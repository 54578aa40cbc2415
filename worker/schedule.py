"""When each flow is due. Beat only ticks; which flow's time has come stands in `schedule_runs`."""

from collections.abc import Mapping
from datetime import timedelta

from worker.settings import Settings

TICK = "upkeep.ring_due"


def schedule(settings: Settings) -> Mapping[str, timedelta]:
    """How long each flow rests at most, even if nobody rings for it."""
    # Half a tick less than was asked for: ticks come a little early or late, and a flow that just
    # misses one would rest for twice its time.
    slack = tick_every(settings) / 2
    return {name: rest - slack for name, rest in _rests(settings).items()}


def tick_every(settings: Settings) -> timedelta:
    """How often beat looks whether a flow is due: as often as the most frequent one runs."""
    return min(_rests(settings).values())


def _rests(settings: Settings) -> Mapping[str, timedelta]:
    return {
        "accounts.apply_events": settings.apply_every,
        "keys.settle": settings.settle_every,
        "keys.expire_due": settings.expire_every,
        "keys.delete_due": settings.delete_every,
        "notices.plan": settings.notices_every,
        "rotations.advance": settings.rotations_every,
        "keys.follow_compromises": settings.rotations_every,
        "keys.tell_refused": settings.refused_every,
        "rotations.start_due": settings.rotation_start_every,
        "operations.advance": settings.operations_every,
        "rotations.hand_over": settings.hand_over_every,
        "outbox.deliver": settings.deliver_every,
        "upkeep.check_invariants": settings.invariants_every,
        "upkeep.seal_audit": settings.seal_every,
        "upkeep.reseal": settings.reseal_every,
        "upkeep.watch_sources": settings.invariants_every,
        "upkeep.retention": settings.retention_every,
    }
