"""`python -m bench [NAME ...] [--quick]`: measures, prints, and writes bench/results.json."""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from worker.logs import configure_logging

from . import (
    backlog,
    cascade,
    events,
    idle,
    latency,
    mass,
    report,
    resident,
    rotating,
    sweep,
    verify,
    waves,
)
from .rounds import Figures
from .servers import Servers, started
from .sizes import QUICK, Sizes

MEASURES: Final[Mapping[str, Callable[[Servers, Sizes], Figures]]] = {
    "cascade": cascade.measure,
    "sweep": sweep.measure,
    "events": events.measure,
    "verify": verify.measure,
    "latency": latency.measure,
    "idle": idle.measure,
    "rotation": rotating.measure,
    "outbox": backlog.measure,
    "memory": resident.measure,
    "mass": mass.measure,
    "waves": waves.measure,
}
RESULTS: Final = Path(__file__).with_name("results.json")


def main() -> int:
    """Returns 1 where a bar was missed."""
    given = _arguments()
    names = given.names or list(MEASURES)
    sizes = QUICK if given.quick else Sizes()
    console = Console()
    configure_logging("critical")
    sys.excepthook = sys.__excepthook__  # a person sits before it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are stopped on the way
    ratios: dict[str, float] = {}
    rates: dict[str, float] = {}
    with started() as servers:
        facts = report.machine(servers)
        for name in names:
            begun = time.monotonic()
            found = MEASURES[name](servers, sizes)
            ratios |= found.ratios
            rates |= found.rates
            console.print(f"{name}: measured in {time.monotonic() - begun:.0f} s")
    figures = Figures(ratios, rates)
    report.show(figures, console)
    if not given.quick and set(names) == set(MEASURES):
        report.write(RESULTS, figures, facts)
        console.print(f"written to {RESULTS}")
    return 1 if report.missed(figures) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is written")
    given = parser.parse_args()
    if unknown := set(given.names) - set(MEASURES):
        parser.error(f"no measure {', '.join(sorted(unknown))}; there are {', '.join(MEASURES)}")
    return given


if __name__ == "__main__":
    sys.exit(main())
