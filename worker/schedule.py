"""When each flow is due. Beat only ticks; which flow's time has come stands in `schedule_runs`."""

from collections.abc import Mapping
from datetime import timedelta

from worker.settings import Settings

TICK = "upkeep.ring_due"


def schedule(settings: Settings) -> Mapping[str, timedelta]:
    """How often each flow runs even if nobody rings for it."""
    return {
        "accounts.apply_events": settings.apply_every,
        "keys.settle": settings.settle_every,
        "keys.expire_due": settings.expire_every,
        "keys.delete_due": settings.delete_every,
        "notices.plan": settings.notices_every,
        "rotations.advance": settings.rotations_every,
        "outbox.deliver": settings.deliver_every,
        "upkeep.retention": settings.retention_every,
    }


def tick_every(settings: Settings) -> timedelta:
    """How often beat looks whether a flow is due: as often as the most frequent one."""
    return min(schedule(settings).values())
