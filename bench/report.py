"""What was found: a table for people, a file for programs."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
from rich.console import Console
from rich.table import Table

from .rounds import Figures
from .servers import Servers

LEAST: Final[Mapping[str, float]] = {
    "cascade_vs_raw_sql": 0.7,
    "cascade_vs_task_per_key": 20.0,
    "sweep_vs_raw_sql": 0.7,
    "events_vs_celery_noop": 1.0,
    "verify_vs_bare_select": 0.7,
    "rotation_vs_raw_sql": 0.5,
}
"""The least that a figure is promised to be (issue 2, Speed)."""

MOST: Final[Mapping[str, float]] = {
    "idle_sweep_1m_vs_10k": 1.3,
    "outbox_1m_vs_10k": 1.5,
    "rss_100k_vs_10k": 1.10,
    "deny_p99_under_mass_disable_s": 5.0,
    "cascade_peak_mb_over_idle": 50.0,
    "rotation_10k_peak_mb": 50.0,
}
"""The most that a figure is promised to be (issue 2, Speed; issue 3, Scale)."""

REPORTED: Final = ("deny_latency_vs_floor",)
"""Ratios without a promise."""


def machine(servers: Servers) -> dict[str, object]:
    """On what it was measured."""
    with servers.postgres.connect() as connection:
        postgres = str(connection.info.server_version // 10_000)
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "python": platform.python_version(),
        "postgresql": postgres,
        "psycopg": f"{psycopg.__version__} ({psycopg.pq.__impl__})",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except FileNotFoundError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def missed(figures: Figures) -> list[str]:
    """The bars that were not met."""
    found = {**figures.rates, **figures.ratios}
    low = [name for name, least in LEAST.items() if found.get(name, least) < least]
    return low + [name for name, most in MOST.items() if found.get(name, most) > most]


def show(figures: Figures, console: Console) -> None:
    """Print both tables."""
    failed = missed(figures)
    ratios = Table(
        "ratio", "found", "bar", "", title="Keyturn against the machine's best, and against itself"
    )
    for name, ratio in figures.ratios.items():
        bar = _bar(name)
        verdict = "" if not bar else "missed" if name in failed else "met"
        ratios.add_row(name, f"{ratio:.2f}", bar or "-", verdict)
    console.print(ratios)
    rates = Table("figure", "found", title="For orientation")
    for name, rate in figures.rates.items():
        most = MOST.get(name)
        rates.add_row(name, f"{rate:,.1f}" + (f" (at most {most:g})" if most else ""))
    console.print(rates)


def _bar(name: str) -> str:
    if name in LEAST:
        return f">= {LEAST[name]:g}"
    return f"<= {MOST[name]:g}" if name in MOST else ""


def write(path: Path, figures: Figures, facts: Mapping[str, object]) -> None:
    """Write the file for programs."""
    content = {
        "ratios": {name: round(ratio, 3) for name, ratio in figures.ratios.items()},
        "rates": {name: round(rate, 2) for name, rate in figures.rates.items()},
        "machine": dict(facts),
    }
    path.write_text(json.dumps(content, indent=2) + "\n")
