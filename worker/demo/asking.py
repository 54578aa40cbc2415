"""The demo's side of its product process."""

import json
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Final, Self

from .stack import PACKAGES, Stack
from .timeline import CheckFailed

YES: Final = "yes"
_END_WITHIN: Final = 15.0  # seconds


class Product:
    """Asks the product what `verify` says. The process lives as long as the `with`.

    Threads may share it.
    """

    def __init__(self, stack: Stack) -> None:
        self._lock = threading.Lock()
        servers = stack.servers()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.demo.product"],
            cwd=PACKAGES,
            env=stack.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._write({"database_url": servers.database_url, "secrets_dir": str(servers.secrets_dir)})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):  # it has ended by itself
            _open(self._process.stdin).close()
        try:
            self._process.wait(_END_WITHIN)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _open(self._process.stdout).close()

    def verify(self, text: str, *, use: bool = False) -> str:
        """`yes`, or the reason why not. With `use` it is recorded as a use of the key."""
        with self._lock:
            self._write({"text": text, "use": use})
            answer = _open(self._process.stdout).readline().strip()
        if not answer:
            raise CheckFailed("the product's process", "an answer of verify", "its end")
        return answer

    def _write(self, line: object) -> None:
        stdin = _open(self._process.stdin)
        stdin.write(json.dumps(line) + "\n")
        stdin.flush()


def _open(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None, "it was asked for"
    return pipe
