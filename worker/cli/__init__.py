"""The command `keyturn`: what operators and scripts do with keys, accounts and events."""


def main() -> None:
    """Run the command that this process was started with, and end the process with its exit code.

    0 done, 1 failed, 2 wrong usage, 3 refused by the rules, 4 the database's schema is not this
    code's, 5 the database role lacks a grant.
    """
    from worker.cli.app import app  # imported here: `up` and `intake` live in this package too

    app(prog_name="keyturn")
