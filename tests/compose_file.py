"""docker-compose.yml as tests see it: its values filled in, its services run as processes."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

ROOT: Final = Path(__file__).parents[1]
FILE: Final = ROOT / "docker-compose.yml"
STOP_WITHIN: Final = 10.0  # seconds that issue 2 grants

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?:(:[?-])([^}]*))?\})")


def parsed() -> dict[str, Any]:
    """The file as it stands, with merge keys resolved."""
    document: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return document


def filled_in(text: str, given: Mapping[str, str]) -> str:
    """A value with its variables: `${NAME:?why}` must be in `given`, `${NAME:-default}` may be."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if name is None:
            return "$"
        if kind == ":-":
            return given.get(name) or str(rest)
        assert name in given, f"{name} is not given: {rest}"
        return given[name]

    return _VARIABLE.sub(value, text)


def environment(service: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
    """The environment that a service gets."""
    return {name: filled_in(value, given) for name, value in service["environment"].items()}


@dataclass
class Service(AbstractContextManager["Service"]):
    """One service of the file as a process of this machine, in a directory of its own.

    `environ` is what the process gets besides a PATH with the programs of this environment, as the
    image has it; nothing of the environment of the tests.
    """

    name: str
    definition: Mapping[str, Any]
    environ: Mapping[str, str]
    directory: Path
    log: Path = field(init=False)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.log = self.directory / f"{self.name}.log"

    def run(self, command: Sequence[str], within: float = 60.0) -> int:
        """Run one command of the service to its end; returns its exit code."""
        with self.log.open("ab") as log:
            return subprocess.run(
                command, **self._surroundings(), stdout=log, stderr=log, timeout=within, check=False
            ).returncode

    def healthy(self) -> bool:
        """What the service's own health check says now."""
        kind, *command = self.definition["healthcheck"]["test"]
        assert kind == "CMD", "a shell would be one more process and one more place for mistakes"
        return self.run(command) == 0

    def start(self) -> Self:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.definition["command"], **self._surroundings(), stdout=log, stderr=log
            )
        return self

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> int:
        """End it as `docker stop` does; its exit code. TimeoutExpired where it takes too long."""
        assert self.process is not None, "it was not started"
        self.process.terminate()
        return self.process.wait(STOP_WITHIN)

    def words(self) -> str:
        """What it wrote, and what its health check wrote."""
        return self.log.read_text("utf-8", "replace")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process is not None and self.alive():
            self.process.kill()
            self.process.wait()

    def _surroundings(self) -> dict[str, Any]:
        programs = Path(sys.executable).parent
        return {
            "env": {"PATH": f"{programs}:/usr/bin:/bin", **self.environ},
            "cwd": self.directory,
            "stdin": subprocess.DEVNULL,
        }


def program(name: str) -> bool:
    """Whether this environment has the program, as the image has it."""
    return os.access(Path(sys.executable).parent / name, os.X_OK)
