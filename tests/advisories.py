"""Whether a locked version has a known weakness: `python -m tests.advisories`, for `make check`.

Exit code 1 where one has. Where no service answers (no network, a mirror that has no advisories),
that is said and the exit code is 0: what could not be checked is no fault of the code.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = (ROOT / "requirements.lock", ROOT / "requirements-test.lock")
SERVICES: Final = ("osv", "pypi")
"""Asked in this order until one knows the packages. OSV says quickly when it cannot be reached."""

ANSWER_WITHIN: Final = 5  # seconds for one answer
CHECK_WITHIN: Final = 120.0  # seconds for all of one service's
WAIVED: Final[Mapping[str, str]] = {}
"""Advisories that do not concern Keyturn, each with the reason why."""


@dataclass
class Answer:
    """What a service says of the locked packages."""

    checked: int = 0
    unknown: list[str] = field(default_factory=list)
    weak: list[str] = field(default_factory=list)
    why: str = ""
    """Why there is no answer, where there is none."""


def check(
    locks: Sequence[Path] = LOCKS,
    services: Iterable[str] = SERVICES,
    *,
    within: float = CHECK_WITHIN,
    environment: Mapping[str, str] = os.environ,
) -> tuple[int, list[str]]:
    """The exit code, and what to tell: by the first service that knows any of the packages."""
    silent = []
    for service in services:
        answer = ask(service, locks, within=within, environment=environment)
        if answer.checked:
            return int(bool(answer.weak)), _told(service, answer)
        silent.append(f"{service}: {answer.why}")
    return 0, [f"WARNING: no dependency was checked for known weaknesses ({'; '.join(silent)})"]


def ask(
    service: str, locks: Sequence[Path], *, within: float, environment: Mapping[str, str]
) -> Answer:
    """What one service knows. Without an answer, or in time for none, nothing is `checked`."""
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service]
    command += ["--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    command += ["--timeout", str(ANSWER_WITHIN), "--format", "json", "--desc", "off"]
    command += [f"--requirement={lock}" for lock in locks]
    command += [f"--ignore-vuln={name}" for name in WAIVED]
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=within, check=False
        )
    except subprocess.TimeoutExpired:
        return Answer(why=f"took longer than {within:g} s")
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):  # it prints nothing where a service fails
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1].partition(":")[0]
        return Answer(why=f"does not answer ({last})")
    return _read(found)


def _read(found: Sequence[Mapping[str, Any]]) -> Answer:
    answer = Answer(why="knows none of the packages")
    for package in found:
        if "skip_reason" in package:
            answer.unknown.append(package["name"])
            continue
        answer.checked += 1
        for weakness in package["vulns"]:
            mend = ", ".join(weakness["fix_versions"]) or "no version yet"
            answer.weak.append(
                f"{package['name']} {package['version']}: {weakness['id']}, mended in {mend}"
            )
    return answer


def _told(service: str, answer: Answer) -> list[str]:
    lines = [f"{len(answer.weak)} known weaknesses in {answer.checked} dependencies ({service})"]
    lines += [f"  {one}" for one in answer.weak]
    if answer.unknown:
        lines.append(f"WARNING: not known there, so not checked: {', '.join(answer.unknown)}")
    return lines


def main() -> None:
    """Check what is locked."""
    exit_code, lines = check()
    sys.stderr.write("\n".join(lines) + "\n")
    sys.exit(exit_code)


if __name__ == "__main__":
    main()
