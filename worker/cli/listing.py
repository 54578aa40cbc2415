"""What narrows a list to one account's."""

from typing import Annotated

import typer

from models.operator import Operator

OfAccount = Annotated[
    str | None,
    typer.Option(metavar="ACCOUNT", help="Only those of this account: its e-mail address or id."),
]


def owner_id(client: Operator, account: str | None) -> str | None:
    """The id of the account that is named, if one is; NotFound if there is none of that name."""
    return None if account is None else str(client.account(account).id)
