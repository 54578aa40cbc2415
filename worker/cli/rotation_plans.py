"""`keyturn rotations plan` and what goes with it: many keys are rotated by one plan."""

from datetime import timedelta
from typing import Annotated

import typer

from models.durations import parse_duration
from models.errors import Refused
from models.operations import CHOICES, Operation, Selection
from worker.cli import output, plan_views, plan_watch
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json
from worker.cli.rotations import app
from worker.cli.session import operator

PlanId = Annotated[str, typer.Argument(metavar="PLAN", help="A plan's id.")]


@app.command()
def plan(
    account: Annotated[
        str | None,
        typer.Option(
            metavar="ACCOUNT", help="Only keys of this account: its e-mail address or id."
        ),
    ] = None,
    role: Annotated[
        str | None, typer.Option(metavar="ROLE", help="Only keys of this role.")
    ] = None,
    older_than: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only keys made longer ago than this, like 90d."),
    ] = None,
    expiring: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Only keys that end within this time, like 14d."),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Every key, where nothing else is given.")
    ] = False,
    json: Json = False,
) -> None:
    """Plan to rotate many keys; nothing is rotated yet.

    The plan has its exact keys, shows what it would do and which keys it leaves
    out, and can be applied for 15 minutes. Options narrow each other down.
    """
    older, within = _duration(older_than, "--older-than"), _duration(expiring, "--expiring")
    if not (account or role or older or within or everything):
        raise typer.BadParameter(f"no keys are chosen: give {CHOICES}")
    with operator() as client:
        chosen = Selection(
            account=client.account(account).id if account else None,
            role=role,
            older_than=older,
            expiring=within,
            everything=everything,
        )
        made = client.operations.plan(chosen)
        plan_views.tell(client, made, _following(made), json=json)


@app.command("plans")
def list_plans(json: Json = False) -> None:
    """List plans of bulk rotation, the newest first."""
    with operator() as client:
        found = client.operations.listed()
    output.answer(json, found, plan_views.rows(found))


@app.command()
def apply(plan: PlanId, yes: Yes = False, dry_run: DryRun = False, json: Json = False) -> None:
    """Rotate the keys of a plan, in waves; asks before.

    Refused where the plan's time is over, or where its selection has by now more
    than 5 % keys that it does not have. Given again, it changes nothing.
    """
    with operator() as client:
        found = client.operations.check(plan)
        if found.state == "planned":
            question = f"Rotate {found.keys} keys of {found.owners} owners?"
            lines = plan_views.summary(found, client.policy.bulk_rate)
            would = {"action": "apply", "plan": found}
            if not agreed(question, lines, would, yes=yes, dry_run=dry_run, json=json):
                return
            found = client.operations.apply(plan)
        follow = f"`keyturn rotations watch {found.id}` shows how far it is."
        output.answer(json, found, f"{plan_views.progress(found)}.", follow)


@app.command()
def pause(plan: PlanId, json: Json = False) -> None:
    """Start no more keys of a plan until it is resumed."""
    with operator() as client:
        _tell(client.operations.pause(plan), json)


@app.command()
def resume(plan: PlanId, json: Json = False) -> None:
    """Go on with a plan that was paused, or that stopped.

    Keys that could not be issued are tried again.
    """
    with operator() as client:
        _tell(client.operations.resume(plan), json)


@app.command()
def watch(plan: PlanId, json: Json = False) -> None:
    """Follow a plan until it ends.

    Shown is how far it is, its rate, and the time left; with --json one JSON
    document a line for each change. Exit code 0 where it was completed, 1 where it
    stopped or was cancelled. Leaving it changes nothing.
    """
    try:
        with operator() as client:
            last = plan_watch.follow(lambda: client.operations.find(plan), json=json)
    except KeyboardInterrupt:
        output.say("The plan goes on. Give the same command again to go on watching.")
        raise
    if last.state != "completed":
        raise typer.Exit(1)


def _following(made: Operation) -> str:
    if made.keys:
        return f"Nothing was rotated. `keyturn rotations apply {made.id}` does it."
    return "There is nothing to rotate: " + (
        "every key that the options choose is left out." if made.left_out else "no key was chosen."
    )


def _tell(found: Operation, json: bool) -> None:
    output.answer(json, found, f"{plan_views.progress(found)}.")


def _duration(text: str | None, option: str) -> timedelta | None:
    try:
        return None if text is None else parse_duration(text)
    except Refused as error:
        raise typer.BadParameter(error.message, param_hint=option) from None
