"""What a run came to, in figures."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.duplicates import Duplicate
from tests.chaos.faults import Fault
from tests.chaos.ledger import Findings
from tests.chaos.load import percentile


@dataclass
class Scorecard:
    """One run. Times are in seconds."""

    broker: str
    seed: int
    minutes: float
    events: int = 0
    deliveries: int = 0
    stories: Mapping[str, int] = field(default_factory=dict)
    keys: int = 0
    faults: Mapping[str, int] = field(default_factory=dict)
    lost: int = 0
    lost_to_a_flush: int = 0
    doubled_effects: int = 0
    outgoing_events: int = 0
    mails: int = 0
    duplicate_deliveries: int = 0
    attributed_to: Mapping[str, int] = field(default_factory=dict)
    refusals: int = 0
    refusal_p50: float = 0.0
    refusal_p99: float = 0.0
    refusal_max: float = 0.0
    looks_of_guard: int = 0
    """How often a family of keys in rotation was asked whether one of them works."""
    recovery: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By sort of fault: how often, and the median and longest recovery."""
    converged_after: float | None = None
    invariants_broken: int = 0
    canaries: int = 0
    canaries_searched_bytes: int = 0
    canaries_found: int = 0
    alarms: Mapping[str, int] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    """What is wrong: empty where all is well."""
    flushed: list[str] = field(default_factory=list)
    """The events that a flush took before they were read."""

    def add_faults(self, faults: Sequence[Fault]) -> None:
        """Count faults, and how soon all was well after them."""
        self.faults = dict(sorted(Counter(fault.name for fault in faults).items()))
        by_name: dict[str, list[float]] = {}
        for fault in faults:
            if fault.recovery is not None:
                by_name.setdefault(fault.name, []).append(fault.recovery)
        self.recovery = {
            name: {"times": len(found), "median": percentile(found, 0.5), "longest": max(found)}
            for name, found in sorted(by_name.items())
        }

    def add_refusals(self, refusals: Sequence[tuple[float, float]]) -> None:
        """The times from publishing to the first no."""
        times = [seconds for _, seconds in refusals]
        self.refusals = len(times)
        self.refusal_p50, self.refusal_p99 = percentile(times, 0.5), percentile(times, 0.99)
        self.refusal_max = max(times, default=0.0)

    def add_findings(self, findings: Findings) -> None:
        """What the ledger found."""
        self.lost, self.doubled_effects = len(findings.lost), len(findings.doubled)
        self.lost_to_a_flush, self.flushed = len(findings.flushed), findings.flushed
        self.broken += findings.unmet

    def add_duplicates(self, duplicates: Sequence[Duplicate]) -> None:
        """Deliveries that came twice; one that no fault explains is wrong."""
        self.duplicate_deliveries = len(duplicates)
        self.attributed_to = dict(Counter(one.cause for one in duplicates if one.cause))
        self.broken += [
            f"{one.what} came twice, {one.second - one.first:.1f} s apart, and no fault explains it"
            for one in duplicates
            if one.cause is None
        ]

    def as_json(self) -> str:
        """For --out."""
        return json.dumps(asdict(self), indent=2)

    def text(self) -> str:
        """For a terminal and the documentation."""
        found: list[tuple[str, Any]] = [
            ("chaos", f"{self.broker}, {self.minutes:g} minutes, seed {self.seed}"),
            ("events", f"{self.events} in {self.deliveries} deliveries, {self.keys} keys"),
            ("stories", _counts(self.stories)),
            ("faults", f"{sum(self.faults.values())} of {len(self.faults)} kinds"),
            ("lost", self.lost),
            ("lost to a flush", self.lost_to_a_flush),
            ("doubled effects", self.doubled_effects),
            ("sent", f"{self.outgoing_events} events, {self.mails} mails"),
            ("came twice", f"{self.duplicate_deliveries} {_counts(self.attributed_to)}".strip()),
            (
                "publish to refusal",
                f"p50 {self.refusal_p50:.3f} s, p99 {self.refusal_p99:.2f} s, "
                f"longest {self.refusal_max:.2f} s of {self.refusals}",
            ),
            ("never locked out", f"{self.looks_of_guard} looks"),
            ("converged after", _seconds(self.converged_after)),
            ("invariants broken", self.invariants_broken),
            (
                "secrets found",
                f"{self.canaries_found} of {self.canaries} "
                f"in {self.canaries_searched_bytes / 1e6:.1f} MB",
            ),
            ("alarms", _counts(self.alarms) or "none"),
        ]
        lines = [f"{name:<20}{value}" for name, value in found]
        lines += ["", f"{'fault':<34}{'times':>6}{'recovered: median':>20}{'longest':>10}"]
        for name, number in self.faults.items():
            one = self.recovery.get(name)
            times = f"{one['median']:>18.2f} s{one['longest']:>8.2f} s" if one else f"{'-':>20}"
            lines.append(f"{name:<34}{number:>6}{times}")
        if self.flushed:
            lines += ["", "lost to a flush:", *(f"  {one}" for one in self.flushed)]
        return "\n".join(lines) + "\n"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())


def _seconds(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"
