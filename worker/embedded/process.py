"""Processes that outlive nobody's memory: started, told apart from later ones, and ended by pid."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from .account import Account

LARGEST_LOG: Final = 10_000_000  # bytes; an older log is kept as one more file
_POLL: Final = 0.02  # seconds


class EmbeddedFailed(RuntimeError):
    """A server or child did not start or end; the message says why, and how to mend it."""


Patience = Sequence[tuple[signal.Signals, float]]
"""Signals to try one after the other, each with the seconds to wait for the end."""


@dataclass(frozen=True)
class Identity:
    """One process and no other: a pid alone is given away again after the process has ended."""

    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """Who runs under `pid` now; None where nobody does (a zombie does not run)."""
        started = _started(pid)
        return cls(pid, started) if started else None

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _started(self.pid) == self.started


def end(processes: Iterable[Identity], patience: Patience) -> list[Identity]:
    """Signal all of them until they are gone; returns those that outlived even the last signal."""
    left = [process for process in processes if process.alive()]
    for number, seconds in patience:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
        deadline = time.monotonic() + seconds
        while left and time.monotonic() < deadline:
            time.sleep(_POLL)
            left = [process for process in left if process.alive()]
    return left


@dataclass(frozen=True)
class PidFile:
    """Where the next start finds what an earlier one left running."""

    path: Path

    def write(self, identity: Identity) -> None:
        write_private(self.path, json.dumps(asdict(identity)))

    def read(self) -> Identity | None:
        """The recorded process, if that very one still runs."""
        try:
            identity = Identity(**json.loads(self.path.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return identity if identity.alive() else None

    def remove(self) -> None:
        """Forget the recorded process, unless it still runs."""
        if self.read() is None:
            self.path.unlink(missing_ok=True)


def end_recorded(files: Sequence[PidFile], patience: Patience) -> None:
    """End what an earlier start recorded and left running, all at the same time.

    Raises EmbeddedFailed where one cannot be ended: two of a kind must never run.
    """
    _end_surely([identity for file in files if (identity := file.read())], patience)
    for file in files:
        file.remove()


def _end_surely(processes: Sequence[Identity], patience: Patience) -> None:
    for process in end(processes, patience):
        raise EmbeddedFailed(
            f"process {process.pid} does not end: look at it with `ps -fp {process.pid}` and end it"
        )


@dataclass
class Running:
    """A process that we started ourselves."""

    popen: subprocess.Popen[bytes]
    identity: Identity
    pid_file: PidFile
    log: Path
    log_start: int

    def alive(self) -> bool:
        return self.popen.poll() is None

    def stop(self, patience: Patience) -> None:
        """End it; afterwards nothing of it is left, its pid file included.

        Raises EmbeddedFailed where it cannot be ended.
        """
        _end_surely([self.identity], patience)
        self.popen.wait()
        self.pid_file.remove()  # not that of a successor, which may have ended this one

    def last_words(self, lines: int = 12) -> str:
        """The end of what it wrote to its log since its start."""
        with self.log.open("rb") as log:
            log.seek(max(self.log_start, self.log.stat().st_size - 4096))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])


def spawn(
    command: Sequence[str],
    *,
    pid_file: PidFile,
    log: Path,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    keep: Sequence[int] = (),
) -> Running:
    """Start `command` in a session of its own, so that a Ctrl-C reaches only its supervisor.

    It runs as `account` where one is given, writes to `log`, and inherits the descriptors `keep`.
    """
    _roll(log)
    with log.open("ab") as output:
        start = output.tell()
        popen = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env=env,
            cwd=cwd,
            pass_fds=keep,
            umask=0o077,
            **(account.arguments() if account else {}),
        )
    # A child that ended at once is a zombie until its end is asked for: its pid is still its own.
    identity = Identity.of(popen.pid) or Identity(popen.pid, "ended")
    pid_file.write(identity)
    return Running(popen, identity, pid_file, log, start)


def write_private(path: Path, text: str) -> None:
    """Put a file for its owner's eyes only (mode 0600) in place, whole or not at all."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _roll(log: Path) -> None:
    with suppress(FileNotFoundError):
        if log.stat().st_size > LARGEST_LOG:
            log.replace(log.with_suffix(f"{log.suffix}.1"))


def _started(pid: int) -> str | None:
    """What sets a process apart from others that had or will have its pid; None if it is gone."""
    try:
        # After the name, which may hold spaces and brackets: state (field 3), start (field 22).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None if Path("/proc/self/stat").exists() else _started_by_ps(pid)
    return None if fields[0] in "ZX" else f"{fields[19]}@{_boot()}"


def _started_by_ps(pid: int) -> str | None:
    command = ["ps", "-o", "stat=,lstart=", "-p", str(pid)]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    return " ".join(found[1:]) if found and not found[0].startswith("Z") else None


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
