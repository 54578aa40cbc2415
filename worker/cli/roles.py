"""`keyturn roles`: what accounts and keys may do. They are written in `keyturn.toml`."""

import typer

from worker.cli import output
from worker.cli.output import Json
from worker.cli.session import operator

app = typer.Typer(
    name="roles", no_args_is_help=True, callback=output.group, help="Roles of accounts and keys."
)


@app.command("list")
def list_roles(json: Json = False) -> None:
    """List the roles, as `keyturn.toml` names them, and what they permit."""
    with operator() as client:
        found = client.roles()
    rows = [(one.name, one.permissions, one.grantable) for one in found]
    headings = ("NAME", "PERMISSIONS", "KEYS MAY HAVE IT")
    output.answer(json, found, output.Table(headings, rows, empty="No roles."))
