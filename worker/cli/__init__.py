"""The command `keyturn`: what operators and scripts do with keys, accounts and events."""

import io
import sys


def main() -> None:
    """Run the command that this process was started with, and end the process with its exit code.

    0 done, 1 failed, 2 wrong usage, 3 refused by the rules, 4 the database's schema is not this
    code's, 5 the database role lacks a grant.
    """
    from worker.cli.app import app  # here: importing one module of this package stays cheap

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name must not break the answer
    app(prog_name="keyturn")
