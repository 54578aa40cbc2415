"""`keyturn rotations`: hand-overs from a key to its successor, under way and ended."""

from typing import Annotated, Literal, TypeAlias

import typer

from models.rotations import Rotation
from worker.cli import output, times
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json
from worker.cli.session import operator

app = typer.Typer(
    name="rotations",
    no_args_is_help=True,
    callback=output.group,
    help="Rotations: from a key to its successor.",
)

State: TypeAlias = Literal["issued", "draining", "retired", "completed", "cancelled"]
RotationId = Annotated[str, typer.Argument(metavar="ROTATION", help="A rotation's id.")]


@app.command("list")
def list_rotations(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT", help="Only those of this account: its e-mail address or id."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """List rotations, the newest first."""
    with operator() as client:
        owner = None if account is None else str(client.account(account).id)
        found = client.rotations(state=state, account=owner)
    rows = [(one.id, one.name, one.account, one.state, one.blocked_reason) for one in found]
    headings = ("ID", "KEY", "ACCOUNT", "STATE", "BLOCKED BY")
    output.answer(json, found, output.Table(headings, rows, empty="No rotations."))


@app.command()
def show(rotation: RotationId, json: Json = False) -> None:
    """Show one rotation: how far it is, and what it waits for."""
    with operator() as client:
        found = client.rotation(rotation)
    _tell(found, json)


@app.command()
def confirm(rotation: RotationId, json: Json = False) -> None:
    """Vouch that the new key is in use, where that cannot be seen."""
    with operator() as client:
        found = client.confirm_rotation(rotation)
    _tell(found, json)


@app.command()
def cancel(
    rotation: RotationId,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for the audit.")] = "requested",
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """End a rotation whose new key is not in use; asks before.

    The new key is deleted, the old one stays.
    """
    with operator() as client:
        found = client.rotation(rotation)
        claimed = times.ago(found.claimed_at) if found.claimed_at else "by nobody yet"
        plan = [
            f'Cancel the rotation of key {found.old_key_id} "{found.name}" of {found.account} '
            f"({found.state}): its successor {found.new_key_id} is deleted.",
            f"The successor was fetched {claimed}.",
        ]
        would = {"action": "cancel", "rotation": found}
        if agreed("Cancel it?", plan, would, yes=yes, dry_run=dry_run, json=json):
            _tell(client.cancel_rotation(rotation, reason), json)


def _tell(rotation: Rotation, json: bool) -> None:
    facts = output.facts(
        id=rotation.id,
        state=rotation.state,
        account=rotation.account,
        old_key=f'{rotation.old_key_id} "{rotation.name}" ({rotation.old_status}), '
        f"used {times.ago(rotation.old_last_used_at)}",
        new_key=f"{rotation.new_key_id} ({rotation.new_status}), "
        f"first used {times.ago(rotation.new_first_used_at)}",
        issued=f"{output.shown(rotation.issued_at)} by {rotation.requested_by}",
        fetch_until=rotation.claim_until if rotation.claimable else None,
        fetched=rotation.claimed_at,
        confirmed=_with(rotation.confirmed_at, rotation.confirmed_by),
        retire_at=rotation.retire_at,
        paused=rotation.paused_at,
        retired=rotation.retired_at,
        ended=_with(rotation.ended_at, rotation.cancel_reason),
        blocked_by=rotation.blocked_reason,
    )
    output.answer(json, rotation, facts)


def _with(moment: object, note: str | None) -> str | None:
    return None if moment is None else output.shown(moment) + (f" ({note})" if note else "")
