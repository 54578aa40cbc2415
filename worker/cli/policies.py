"""`keyturn keys policy` and `keyturn accounts policy`: how keys are rotated, and when."""

from typing import Annotated

import typer

from models import rotation_choice, rotation_starts
from worker.cli import accounts, key_views, keys, output
from worker.cli.output import Json
from worker.cli.session import operator

Name = Annotated[
    str | None,
    typer.Argument(metavar="[NAME]", help="One of `rotation_policies` in keyturn.toml."),
]
Clear = Annotated[bool, typer.Option("--clear", help="Take back what was chosen.")]


def of_key(key: keys.KeyId, name: Name = None, clear: Clear = False, json: Json = False) -> None:
    """Choose or show by which policy a key is rotated.

    Without a choice of its own a key follows that of its account, else that of
    its role, else `default`. Keys that succeed it follow the same policy.
    """
    wanted = _wanted(name, clear)
    with operator() as client:
        changed = wanted and client.database.run(
            lambda tx: rotation_choice.for_key(
                tx, key, name, actor=client.actor, policy=client.policy
            )
        )
        found = client.key(key)
        scheduled = client.database.run(
            lambda tx: rotation_starts.next_for(tx, found.id, client.policy)
        )
    document = {"id": found.id, "rotation_policy": found.rotation_policy, "scheduled": scheduled}
    output.answer(
        json,
        {**document, "changed": bool(changed)},
        f"{found.id}: {_said(found.rotation_policy)}",
        key_views.scheduled_line(scheduled) or "The schedule does not rotate it.",
    )


def of_account(
    account: accounts.AccountName, name: Name = None, clear: Clear = False, json: Json = False
) -> None:
    """Choose or show by which policy its keys are rotated.

    A key for which a policy was chosen itself goes on following that.
    """
    wanted = _wanted(name, clear)
    with operator() as client:
        changed = wanted and client.database.run(
            lambda tx: rotation_choice.for_account(
                tx, account, name, actor=client.actor, policy=client.policy
            )
        )
        found = client.account(account)
        now = client.database.run(lambda tx: rotation_choice.of_account(tx, found.id))
    document = {"account": found.email, "rotation_policy": now, "changed": bool(changed)}
    output.answer(json, document, f"{found.email}: {_said(now)}")


def _wanted(name: str | None, clear: bool) -> bool:
    """Whether something is to be changed."""
    if clear and name is not None:
        raise typer.BadParameter("a policy or --clear, not both")
    return clear or name is not None


def _said(name: str | None) -> str:
    return "no policy of its own" if name is None else f"policy {name}"
