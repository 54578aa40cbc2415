"""A Keyturn of the demo's own: `keyturn up` in a temporary directory, and its commands."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any, Final, Self

from worker.embedded import Embedded, running
from worker.embedded.apart import apart
from worker.embedded.process import PidFile

from .timeline import CheckFailed, wait

PACKAGES: Final = Path(__file__).parents[2]
"""From where `python -m worker.cli` finds its modules, installed or not."""

_READY: Final = "Keyturn is ready"
_START_WITHIN: Final = 180.0  # seconds
_STOP_WITHIN: Final = 30.0
_COMMAND_WITHIN: Final = 90.0
_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stack:
    """Starts at the beginning of a `with`; at its end it is stopped and its directory is gone.

    Where the block fails, the logs are kept in `logs`.
    """

    def __init__(self) -> None:
        self.logs: Path | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="keyturn-demo-"))
        self._directory.chmod(0o711)  # root's servers run as somebody else, who must get in
        self.data = self._directory / "data"
        self._output = self._directory / "up.log"
        self.environment = apart(self.data, Path(__file__).with_name("keyturn.toml"))
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with _undisturbed():
            failed = kind is not None and issubclass(kind, Exception)
            try:
                self._stop()
            except CheckFailed:
                failed = True
                raise
            finally:
                if failed:
                    self._keep_logs()
                shutil.rmtree(self._directory)

    def keyturn(self, *arguments: str, stdin: str | None = None, exit_code: int = 0) -> Any:
        """The answer of a command, given with --json. Raises CheckFailed at another exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "worker.cli", "--json", *arguments],
            cwd=PACKAGES,
            env=self.environment,
            input=stdin or "",
            capture_output=True,
            text=True,
            timeout=_COMMAND_WITHIN,
            check=False,
        )
        if done.returncode != exit_code:
            # What a command that went well has printed may be the text of a key.
            why = done.stdout + done.stderr if done.returncode else "its answer"
            seen = f"{done.returncode}: {why.strip()}"
            raise CheckFailed(f"keyturn {' '.join(arguments)}", f"exit code {exit_code}", seen)
        return json.loads(done.stdout)

    def servers(self) -> Embedded:
        """Where its servers are, as `state.json` tells."""
        found = running(self.data)
        if found is None:
            raise CheckFailed("the servers of keyturn up", "running", self._last_words())
        return found

    def mails(self, email: str) -> list[Message]:
        """The mails to this address in the Maildir."""
        files = sorted((self.data / "mail" / "new").glob("*"))
        found = [message_from_bytes(file.read_bytes()) for file in files]
        return [mail for mail in found if mail["To"] == email]

    def kill_worker(self) -> None:
        """SIGKILL."""
        os.kill(self._worker(), signal.SIGKILL)

    def _worker(self) -> int:
        found = PidFile(self.data / "pids" / "worker.json").read()
        if found is None:
            raise CheckFailed("the worker", "running", self._last_words())
        return found.pid

    def _start(self) -> None:
        with self._output.open("wb") as output:
            self._up = up = subprocess.Popen(
                [sys.executable, "-m", "worker.cli", "up"],
                cwd=PACKAGES,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        wait(
            lambda: _READY in self._output.read_text(),
            lambda ready: ready or up.poll() is not None,
            within=_START_WITHIN,
        )
        if _READY not in self._output.read_text() or up.poll() is not None:
            raise CheckFailed("keyturn up", repr(_READY), self._last_words())

    def _stop(self) -> None:
        if self._up is None:
            return
        self._up.terminate()  # where a Ctrl-C has reached it already, this changes nothing
        try:
            self._up.wait(_STOP_WITHIN)
        except subprocess.TimeoutExpired:
            self._up.kill()
            self._up.wait()
            raise CheckFailed(
                "keyturn up", f"its end within {_STOP_WITHIN:.0f} s", "none"
            ) from None

    def _keep_logs(self) -> None:
        self.logs = Path(tempfile.mkdtemp(prefix="keyturn-demo-logs-"))
        for path in (self._output, *(self.data / "log").glob("*.log")):
            if path.exists():
                shutil.copy(path, self.logs)

    def _last_words(self) -> str:
        return " | ".join(self._output.read_text(errors="replace").split("\n")[-6:]).strip(" |")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave servers behind: what ends is let end."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in _ENDING]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
