"""`keyturn why`: why a key works or not, and what will become of it, in sentences."""

from typing import Annotated

import typer

from worker.cli import output
from worker.cli.key_argument import no_secret
from worker.cli.output import Json
from worker.cli.session import operator
from worker.cli.stdin import text_from_stdin


def why(
    named: Annotated[
        str,
        typer.Argument(
            metavar="KEY|ACCOUNT|ROTATION|PLAN",
            callback=no_secret,
            help="The id of a key, rotation or plan, an account's e-mail address or id; "
            "or - for a key's text on stdin.",
        ),
    ],
    json: Json = False,
) -> None:
    """Explain why a key works or not, what will happen, and what to do.

    Also of an account, and what a rotation or a plan of many waits for.
    """
    text = text_from_stdin() if named == "-" else None
    with operator() as client:
        said = client.why(named) if text is None else client.why_text(text)
    parts = list(said.now)
    for heading, lines in (("What will happen:", said.next), ("What can be done:", said.do)):
        if lines:
            parts += ["", heading, *(f"- {line}" for line in lines)]
    output.answer(json, said, "\n".join(parts))
