"""`keyturn demo`: everything once, on a Keyturn of its own."""

import signal

import typer

from worker.cli import output
from worker.cli.output import Json


def demo(json: Json = False) -> None:
    """Show all of it at work, in about a minute and a half.

    Starts a Keyturn of its own in a temporary directory, with waits of seconds, takes a dozen
    accounts through everything, and checks each step by `verify`. Yours is not touched.
    """
    from worker.demo.play import play

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)  # as Ctrl-C does: it cleans up
    outcome = play(output.say)
    rows = [
        (f"{one.at:.1f} s", one.what, one.seen, "" if one.took is None else f"{one.took:.2f} s")
        for one in outcome.entries
    ]
    headings = ("AT", "WHAT HAPPENED", "WHAT WAS SEEN", "TOOK")
    document = {
        "checks": outcome.checks,
        "timeline": outcome.entries,
        "failure": outcome.failure,
        "logs": outcome.logs and str(outcome.logs),
    }
    table = output.Table(headings, rows, "Nothing happened.", frozenset({"AT", "TOOK"}))
    then = "" if outcome.failure is None else ", then one failed"
    output.answer(json, document, table, f"demo: {outcome.checks} checks passed{then}")
    if outcome.failure is not None:
        output.say(f"demo: {outcome.failure}")
        output.say(f"The logs are kept in {outcome.logs}" if outcome.logs else "No logs were kept.")
        raise typer.Exit(1)
