"""`keyturn` as a process of its own, with streams as a caller may leave them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

KEYTURN: Final = [sys.executable, "-m", "worker.cli"]
PROJECT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """How it ended."""

    code: int
    out: str
    err: str


def keyturn(
    *arguments: str,
    stdin: bytes = b"",
    stdout: IO[bytes] | None = None,
    more: Mapping[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Done:
    """Run a command; `before` runs in the new process, `stdout` is where its answer goes.

    No command may end with a traceback, whatever it is given.
    """
    done = subprocess.run(
        [*KEYTURN, *arguments],
        input=stdin,
        stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(more or {})},
        cwd=PROJECT,
        preexec_fn=before,
        timeout=60,
        check=False,
    )
    told = Done(
        done.returncode,
        (done.stdout or b"").decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    assert "Traceback" not in told.out + told.err
    return told
