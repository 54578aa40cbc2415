"""What happens: short scripts of verbs from `models`, each doing whatever is due."""

from . import (
    accounts,
    compromise,
    keys,
    notices,
    operations,
    outbox,
    rotation_schedule,
    rotations,
    running,
    upkeep,
)
from .runtime import Flow, Runtime, flows, run

__all__ = [
    "Flow",
    "Runtime",
    "accounts",
    "compromise",
    "flows",
    "keys",
    "notices",
    "operations",
    "outbox",
    "rotation_schedule",
    "rotations",
    "run",
    "running",
    "upkeep",
]
