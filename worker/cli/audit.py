"""`keyturn audit`: whether the audit is as it was sealed."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.errors import Refused
from worker.cli import failures, output
from worker.cli.output import Json
from worker.cli.session import operator

if TYPE_CHECKING:
    from models.audit_verify import Anchor, Verified

app = typer.Typer(
    name="audit", no_args_is_help=True, callback=output.group, help="The audit's seals."
)

LONGEST_ANCHOR = 4096  # bytes; one has some 160


@app.command()
def verify(
    anchor: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="What `audit anchor` printed earlier; - is stdin."),
    ] = None,
    json: Json = False,
) -> None:
    """Recompute every seal of the audit.

    Nothing is written or locked. Exit code 0 if all is as it was sealed, 1 if not: then what is
    wrong is shown. Without --anchor nobody can see that the end of the audit was cut off.
    """
    from models import audit_verify

    kept = _kept(anchor) if anchor else None
    with operator() as client:
        found = audit_verify.verify(client.database, kept)
    document = {"verified": not found.problems, "anchored": kept is not None, "found": found}
    output.answer(json, document, *_told(found, kept))
    if found.problems:
        raise typer.Exit(failures.FAILED)


@app.command("anchor")
def print_anchor(json: Json = False) -> None:
    """Print the newest seal as a JSON document, to be kept elsewhere.

    `audit verify --anchor` then shows whether the audit still has all that it had now. Keep it
    where nobody can write who may write to the database.
    """
    from models import audit_verify

    with operator() as client:
        found = client.database.run(audit_verify.anchor)
    output.answer(True, found)


def _kept(file: str) -> "Anchor":
    from models.audit_verify import Anchor

    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as opened:
            return Anchor.parse(opened.read(LONGEST_ANCHOR))
    except OSError as error:
        message = f"cannot read {file}: {error.strerror}"
        raise typer.BadParameter(message, param_hint="--anchor") from None
    except Refused as refusal:
        raise typer.BadParameter(refusal.message, param_hint="--anchor") from None


def _told(found: "Verified", kept: "Anchor | None") -> list[str]:
    lines = [f"{problem.code}: {problem.message}" for problem in found.problems]
    lines.append(
        output.facts(
            as_it_was_sealed=not found.problems,
            seals=found.seals,
            sealed_entries=found.entries,
            newest_seal=found.newest,
            entries_to_seal=found.waiting,
            oldest_of_them=found.waiting_since,
            anchor=f"seal {kept.seal}" if kept else "none given: a cut end is not seen",
        )
    )
    return lines
