"""What most commands begin with: the settings, the logs, and the database, looked at before use."""

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager

from models.operator import Operator
from worker.settings import Settings, load_settings


def actor() -> str:
    """Who gives the command, for the audit: the Unix user, whatever the environment says."""
    try:
        name = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"operator:{name}"


def settings(*, quiet: bool = True) -> Settings:
    """The settings of this process, with its logs on stderr: of a `quiet` one only warnings."""
    from worker.logs import configure_logging

    found = load_settings()
    if quiet:
        configure_logging("warning", "console", found.key_prefix)
    else:
        configure_logging(found.log_level, found.log_format, found.key_prefix)
    return found


@contextmanager
def operator(given: Settings | None = None) -> Iterator[Operator]:
    """An Operator on a database whose schema is this code's own.

    Raises Misconfigured, and its kind WrongSchema before anything is read or written.
    """
    from worker import checks, setup

    found = given or settings()
    checks.schema(found)
    with setup.operator(found, actor()) as made:
        yield made
