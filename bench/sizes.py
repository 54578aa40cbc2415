"""How much each measure does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of the promised figures (issue 2, Speed)."""

    rounds: int = 5
    """How often each side of a comparison is measured, in turns."""
    slow_rounds: int = 3
    """The same where a round takes many seconds."""
    keys: int = 100_000
    """Keys of a cascade, a sweep, a round of `verify`; the first two have as many bystanders."""
    keys_of_one: int = 100
    """Keys of an account, where many accounts are swept."""
    task_keys: int = 2_000
    """Keys that are disabled by a Celery task each."""
    accounts: int = 5_000
    """Accounts that are disabled by an event each."""
    keys_an_account: int = 10
    noop_tasks: int = 5_000
    denials: int = 40
    """Keys that are cut one by one to see how long that takes."""


QUICK = Sizes(
    rounds=3,
    slow_rounds=1,
    keys=10_000,
    task_keys=300,
    accounts=1_000,
    noop_tasks=1_000,
    denials=10,
)
"""For a first look: the figures say little."""
