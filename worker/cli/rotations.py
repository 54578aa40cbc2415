"""`keyturn rotations`: hand-overs from a key to its successor, under way and ended."""

from typing import Annotated, Literal, TypeAlias

import typer

from worker.cli import output, plan_views, times
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.listing import OfAccount, owner_id
from worker.cli.output import Json
from worker.cli.rotation_views import tell
from worker.cli.session import operator

app = typer.Typer(
    name="rotations",
    no_args_is_help=True,
    callback=output.group,
    help="Rotations: from a key to its successor.",
)

State: TypeAlias = Literal["issued", "draining", "retired", "completed", "cancelled"]
RotationId = Annotated[str, typer.Argument(metavar="ROTATION", help="A rotation's id.")]
EitherId = Annotated[
    str, typer.Argument(metavar="ID", help="The id of a rotation, or of a plan of many.")
]


@app.command("list")
def list_rotations(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    account: OfAccount = None,
    json: Json = False,
) -> None:
    """List rotations, the newest first."""
    with operator() as client:
        found = client.rotations(state=state, account=owner_id(client, account))
    rows = [(one.id, one.name, one.account, one.state, one.blocked_reason) for one in found]
    headings = ("ID", "KEY", "ACCOUNT", "STATE", "BLOCKED BY")
    output.answer(json, found, output.Table(headings, rows, empty="No rotations."))


@app.command()
def show(rotation: EitherId, json: Json = False) -> None:
    """Show a rotation, or a plan: how far it is."""
    with operator() as client:
        if client.operations.exists(rotation):
            plan_views.show(client, rotation, json=json)
            return
        tell(client, client.rotation(rotation), json)


@app.command()
def cancel(
    rotation: EitherId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")] = "requested",
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """End a rotation, or a plan; asks before.

    A rotation only while its new key is not in use: that one is deleted, the old
    one stays. Of a plan, the keys that were not begun are not rotated; rotations
    under way go on.
    """
    with operator() as client:
        if client.operations.exists(rotation):
            plan_views.cancel(client, rotation, reason, yes=yes, dry_run=dry_run, json=json)
            return
        found = client.rotation(rotation)
        claimed = times.ago(found.claimed_at) if found.claimed_at else "by nobody yet"
        plan = [
            f'Cancel the rotation of key {found.old_key_id} "{found.name}" of {found.account} '
            f"({found.state}): its successor {found.new_key_id} is deleted.",
            f"The successor was fetched {claimed}.",
        ]
        would = {"action": "cancel", "rotation": found}
        client.trying().cancel_rotation(rotation, reason)  # refused before it is asked about
        done = found.state == "cancelled" and not dry_run  # nobody is asked about that again
        if done or agreed("Cancel it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            tell(client, client.cancel_rotation(rotation, reason), json)
