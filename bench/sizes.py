"""How much each measure does."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Sizes:
    """The sizes of the promised figures (issue 2, Speed; issue 3, Scale)."""

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
    rotations: int = 500
    """Keys that are rotated from the request to the end."""
    bulk_keys: int = 10_000
    """Keys that one plan rotates in waves."""
    few_keys: int = 10_000
    very_many_keys: int = 1_000_000
    """Between these two the cost of what finds nothing to do is compared."""
    mass: int = 50_000
    """Accounts that one source disables at once, while another one cuts single ones."""
    urgent_every: float = 0.1
    """Seconds between two of the latter."""
    few_settled: int = 10_000
    very_many_settled: int = 1_000_000
    """Between these two the cost of claiming outgoing messages is compared."""
    few_events: int = 10_000
    many_events: int = 100_000
    """Between these two the memory of the processes is compared."""


QUICK = Sizes(
    rounds=3,
    slow_rounds=1,
    keys=10_000,
    task_keys=300,
    accounts=1_000,
    noop_tasks=1_000,
    denials=10,
    rotations=100,
    bulk_keys=1_000,
    very_many_keys=100_000,
    mass=5_000,
    very_many_settled=100_000,
    few_events=1_000,
    many_events=10_000,
)
"""For a first look: the figures say little."""
