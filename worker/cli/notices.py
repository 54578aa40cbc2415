"""`keyturn notices`: what owners were told about the end of their keys."""

from typing import Annotated, Literal, TypeAlias

import typer

from models.durations import format_duration
from worker.cli import output
from worker.cli.listing import OfAccount, owner_id
from worker.cli.output import Json
from worker.cli.session import operator

app = typer.Typer(
    name="notices", no_args_is_help=True, callback=output.group, help="Notices to owners of keys."
)

State: TypeAlias = Literal["planned", "sent", "superseded", "skipped", "failed"]


@app.command("list")
def list_notices(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    account: OfAccount = None,
    json: Json = False,
) -> None:
    """List notices about the end of keys, the newest first."""
    with operator() as client:
        found = client.notices(account=owner_id(client, account), state=state)
    rows = [
        (
            one.planned_at,
            one.account,
            f"{one.name} (...{one.hint})",
            format_duration(one.threshold) if one.threshold else "at its end",
            f"{one.state}: {one.reason}" if one.reason else one.state,
        )
        for one in found
    ]
    headings = ("PLANNED", "ACCOUNT", "KEY", "BEFORE END", "STATE")
    output.answer(json, found, output.Table(headings, rows, empty="No notices."))
