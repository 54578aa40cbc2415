"""Deliveries that came twice, each with the fault that explains it."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.faults import Fault
from tests.chaos.ledger import Posted, Told

BEFORE = 1.0
"""Seconds: clocks of broker and watcher, and a delivery's own way, may differ by that much."""


@dataclass(frozen=True)
class Duplicate:
    """A message that its receiver got twice, one after the other. Times are of `time.time()`."""

    what: str
    first: float
    second: float
    cause: str | None
    """The fault that lasted, or came, between the two; None where there is none."""


def of_events(told: Iterable[Told], faults: Sequence[Fault]) -> list[Duplicate]:
    """Outgoing events that came twice with one id."""
    by_id: dict[str, list[Told]] = defaultdict(list)
    for one in told:
        by_id[one.id].append(one)
    found = []
    for name, copies in by_id.items():
        for first, second in pairwise(sorted(copies, key=lambda one: one.at)):
            sent = first.at if first.since is None else first.since
            cause = _cause(sent, second.at, faults)
            if second.redelivered:
                cause = "the receiver lost its connection"
            found.append(Duplicate(f"event {name}", first.at, second.at, cause))
    return found


def of_mails(posted: Iterable[Posted], faults: Sequence[Fault]) -> list[Duplicate]:
    """Mails that came twice with one Message-ID."""
    by_id: dict[str, list[float]] = defaultdict(list)
    for one in posted:
        by_id[one.message_id].append(one.at)
    return [
        Duplicate(f"mail {name}", first, second, _cause(first, second, faults))
        for name, times in by_id.items()
        for first, second in pairwise(sorted(times))
    ]


def _cause(first: float, second: float, faults: Sequence[Fault]) -> str | None:
    """The first fault that can have kept Keyturn from noting the first delivery."""
    for fault in faults:
        harmless = fault.kind == "FLUSHALL" or fault.target in ("beat", "intake")
        if not harmless and fault.began <= second and fault.ended >= first - BEFORE:
            return fault.name
    return None
