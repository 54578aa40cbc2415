"""Before something is taken away: show what would happen, then ask, unless that was answered."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from worker.cli import output

Yes = Annotated[bool, typer.Option("--yes", help="Do it without asking.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")]


class NobodyAnswers(Exception):
    """The command would have to ask, and stdin is no terminal."""


def agreed(
    question: str,
    plan: Sequence[str],
    document: object,
    *,
    yes: bool,
    dry_run: bool,
    json: bool,
) -> bool:
    """Whether to go on with what `plan` tells people, and `document` programs.

    With `dry_run` the plan is the result: it is printed, and the answer is False. Otherwise it goes
    to stderr. Raises NobodyAnswers where stdin is no terminal, and typer.Exit where the answer is
    not yes.
    """
    if dry_run:
        output.answer(json, {"dry_run": True, "would": document}, *plan, "Nothing was done.")
        return False
    for line in plan:
        output.say(line)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise NobodyAnswers(
            "nothing was done: nobody can be asked here. Add --yes to do it, or --dry-run to see "
            "what would be done"
        )
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        output.say("Nothing was done.")
        raise typer.Exit(1)
    return True
