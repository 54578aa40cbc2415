"""`keyturn accounts email`: where an account's mails go."""

from typing import Annotated

import typer

from models.linking import Move
from worker.cli import accounts, session
from worker.cli.accounts import AccountName
from worker.cli.asking import DryRun, Yes, agreed
from worker.cli.output import Json


def email(
    account: AccountName,
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new e-mail address.")],
    unlink_old: Annotated[
        bool, typer.Option("--unlink-old", help="Events by the old address hit it no longer.")
    ] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Have an account's mails go to another address.

    That address names the account from now on, for events and for people; what
    waits for it is applied at once. The old one names it too, unless --unlink-old
    is given: give it where somebody else may get that address. Asks first.
    """
    with session.operator() as client:
        found = client.account(account)
        name = str(found.id)
        move = client.move_mails(name, new, unlink_old=unlink_old, dry_run=True)
        would = {"account": found.id, **vars(move)}
        plan = _plan(move, unlink_old)
        question = "Change it?"
        if not move.changes and not dry_run:
            accounts.tell(client, found, json, *plan)
        elif agreed(question, plan, would, yes=yes, dry_run=dry_run, json=json):
            client.move_mails(name, new, unlink_old=unlink_old)
            accounts.tell(client, client.account(name), json)


def _plan(move: Move, unlink_old: bool) -> list[str]:
    old, new = move.before, move.after
    if not move.changes:
        said = [f"Its mails go to {new} already, which names it: there is nothing to do."]
        ends = "`keyturn accounts unlink` ends the link of an address that was its own before."
        return [*said, ends] if unlink_old else said
    plan = [f"Its mails go to {old}. They would go to {new}, those too that wait to be sent."]
    if old == new:
        plan = [f"Its mails go to {old}, and will."]
    if move.links:
        plan.append(f"Events about {new} would reach it from now on.")
    if move.unlinks:
        plan.append(f"Later events about {old} would no longer reach it.")
    elif old != new:
        plan.append(f"What {old} names stays as it is (--unlink-old ends its link).")
    return plan
