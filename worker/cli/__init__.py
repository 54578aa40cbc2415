"""The command `keyturn`: what operators and scripts do with keys, accounts and events."""

import io
import os
import re
import sys
from collections.abc import Sequence


def main() -> None:
    """Run the command that this process was started with, and end the process with its exit code.

    0 done, 1 failed, 2 wrong usage, 3 refused by the rules, 4 the database's schema is not this
    code's, 5 the database role lacks a grant.
    """
    _prepare_streams()
    _refuse_secrets(sys.argv[1:])
    from worker.cli.app import app  # here: importing one module of this package stays cheap

    try:
        app(prog_name="keyturn")
    except OSError as error:  # of what is printed before a command begins, like --help
        sys.exit(f"keyturn: {error}")


def _refuse_secrets(arguments: Sequence[str]) -> None:
    """End the process where an argument holds a key's text: no message may repeat it."""
    from models.key_text import parse

    if any(parse(word) for one in arguments for word in re.findall(r"[0-9A-Za-z_]+", one)):
        print(
            "keyturn: an argument holds a key's text, which is a secret: arguments are seen by "
            "others and kept in histories. Give its text on stdin, and consider it leaked: rotate "
            "it with --compromised, or delete it",
            file=sys.stderr,
        )
        sys.exit(2)


def _prepare_streams() -> None:
    """Make the standard streams usable, also those that the caller has closed.

    Without stdout the process ends: a command would be done, and a new key's text seen by nobody.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: SIM115 - it lives as long as the process
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    if sys.stdout is None:
        sys.exit("keyturn: stdout is closed: nothing was done, since nobody would see the answer")
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name must not break the answer
