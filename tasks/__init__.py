"""What happens: short scripts of verbs from `models`, each doing whatever is due."""

from . import accounts, keys, notices, outbox, rotations, running, upkeep
from .runtime import Flow, Runtime, flows, run

__all__ = [
    "Flow",
    "Runtime",
    "accounts",
    "flows",
    "keys",
    "notices",
    "outbox",
    "rotations",
    "run",
    "running",
    "upkeep",
]
