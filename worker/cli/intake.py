"""`keyturn intake`: the process that receives account events."""

from worker.cli import session
from worker.cli.output import Json


def intake(json: Json = False) -> None:
    """Receive account events until SIGTERM or Ctrl-C.

    Events are only stored here; workers apply them.
    """
    from worker.intake.main import run

    run(session.settings(quiet=False))
