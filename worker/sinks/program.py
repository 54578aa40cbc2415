"""New keys for a program of the operator's, on its standard input."""

import os
import signal
import stat
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from models.errors import Misconfigured
from models.key_text import Secret
from models.sinks import HandOver, Outcome
from worker.settings_environment import plain_environment

FINAL: Final = {os.EX_DATAERR: "EX_DATAERR", os.EX_CONFIG: "EX_CONFIG"}
"""Exit codes (sysexits.h) by which a program says that another try would end the same."""

GRACE: Final = 2.0  # seconds between SIGTERM and SIGKILL
_OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH


class Program:
    """Runs the command once for each try: exit code 0 is the receipt.

    Its output goes nowhere. It begins a process group of its own, which is ended whole where it
    takes too long. Raises Misconfigured where the program cannot be run, or others may change it.
    """

    def __init__(self, command: Sequence[str], timeout: float) -> None:
        self._command = list(command)
        self._timeout = timeout
        _check(Path(command[0]))

    def deliver(self, hand_over: HandOver, secret: Secret) -> Outcome:
        name = Path(self._command[0]).name
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**plain_environment(), **facts(hand_over)},
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            return Outcome(state="retry", error=f"{name} could not be started ({error.strerror})")
        try:
            # A program that closes its input early is judged by its exit code alone.
            process.communicate(f"{secret.reveal()}\n".encode(), timeout=self._timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            why = f"{name} took longer than {self._timeout:.0f} s, and was killed"
            return Outcome(state="retry", error=why)
        except BaseException:
            _end(process)
            raise
        return _judged(name, process.returncode)


def facts(hand_over: HandOver) -> Mapping[str, str]:
    """What the program finds in its environment. Names come from outside: it must quote them."""
    return {
        "KEYTURN_ROTATION_ID": str(hand_over.rotation_id),
        "KEYTURN_FAMILY_ID": str(hand_over.family_id),
        "KEYTURN_ACCOUNT": hand_over.account,
        "KEYTURN_ACCOUNT_ID": str(hand_over.account_id),
        "KEYTURN_KEY_ID": str(hand_over.key_id),
        "KEYTURN_KEY_NAME": hand_over.key_name,
        "KEYTURN_EXPIRES_AT": hand_over.expires_at.isoformat(),
        "KEYTURN_OLD_KEY_ID": str(hand_over.old_key_id),
        "KEYTURN_OLD_EXPIRES_AT": hand_over.old_expires_at.isoformat(),
    }


def _judged(name: str, code: int) -> Outcome:
    if code == 0:
        return Outcome(state="taken", receipt=f"{name} took it")
    if code < 0:
        return Outcome(state="retry", error=f"{name} was ended by signal {-code}")
    if code in FINAL:
        return Outcome(state="failed", error=f"{name} refused the key for good ({FINAL[code]})")
    return Outcome(state="retry", error=f"{name} ended with exit code {code}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the process and all of its group: those that ask for it politely, and then the rest."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _check(program: Path) -> None:
    try:
        status = program.stat()
    except OSError as error:
        raise Misconfigured(
            f"the program {program} of a sink cannot be found ({error.strerror}): correct `command`"
        ) from None
    if not stat.S_ISREG(status.st_mode) or not os.access(program, os.X_OK):
        raise Misconfigured(f"{program} is no program that may be run: `chmod u+x {program}`")
    if status.st_mode & _OTHERS_WRITE:
        raise Misconfigured(
            f"others may change the program {program}, which is given new keys: "
            f"run `chmod go-w {program}`"
        )
