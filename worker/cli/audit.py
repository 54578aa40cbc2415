"""`keyturn audit`: who changed what, and whether the audit is as it was sealed."""

import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from models.durations import parse_duration
from models.errors import Refused
from worker.cli import failures, output, times
from worker.cli.output import Json
from worker.cli.session import operator

if TYPE_CHECKING:
    from models.audit import Entry
    from models.audit_verify import Anchor, Verified

app = typer.Typer(
    name="audit",
    no_args_is_help=True,
    callback=output.group,
    help="Who changed what, and the audit's seals.",
)

LONGEST_ANCHOR = 4096  # bytes; one has some 160


@app.command("list")
def list_entries(
    account: Annotated[
        str | None, typer.Option(metavar="ACCOUNT", help="Only of this account and its keys.")
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="KEY", help="Only of this key.")] = None,
    actor: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only by this actor, as it stands in the list."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only of the last so long, such as 24h or 7d."),
    ] = None,
    limit: Annotated[
        int, typer.Option(metavar="N", min=1, max=100_000, help="At most so many.")
    ] = 100,
    json: Json = False,
) -> None:
    """List who changed what, and why, the newest first."""
    from models import accounts, api_keys, audit

    ago = _duration(since)
    with operator() as client, client.database.begin() as tx:
        found = audit.listed(
            tx,
            account_id=accounts.find(tx, account).id if account is not None else None,
            key_id=api_keys.find(tx, key).id if key is not None else None,
            actor=actor,
            since=ago,
            limit=limit,
        )
    rows = [(one.id, times.ago(one.at), one.actor, _what(one)) for one in found]
    headings = ("ID", "WHEN", "ACTOR", "WHAT")
    output.answer(json, found, output.Table(headings, rows, empty="No entries."))


def _duration(text: str | None) -> timedelta | None:
    try:
        return None if text is None else parse_duration(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--since") from None


def _what(entry: "Entry") -> str:
    whom = [f"key {entry.key_id}" if entry.key_id else None, entry.account]
    change = f"{entry.before} to {entry.after}" if entry.before else entry.after
    parts = (entry.action, " of ".join(name for name in whom if name), change, entry.why)
    return ", ".join(part for part in parts if part)


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
