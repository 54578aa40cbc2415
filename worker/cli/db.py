"""`keyturn db`: the database itself. For its owner."""

import typer

from worker.cli import asking, output, session
from worker.cli.asking import DryRun, Yes
from worker.cli.output import Json

app = typer.Typer(
    name="db", no_args_is_help=True, callback=output.group, help="The database's own roles."
)


@app.command()
def roles(yes: Yes = False, dry_run: DryRun = False, json: Json = False) -> None:
    """Make the database roles of worker, intake, operators and products, with their grants.

    They cannot log in: make the login role of each process a member of one. What is granted to
    them beyond the table in models/grants.py is revoked, after a question. Safe to repeat;
    --dry-run prints the SQL. To be run by the schema's owner, who may create roles.
    """
    from models import grants
    from models.base import Tx

    def look(tx: Tx) -> list[str]:
        return grants.statements(tx.connection)

    with session.operator() as client:
        sql = client.database.run(look)
        script = [f"{statement};" for statement in sql]
        if dry_run:
            output.answer(json, {"dry_run": True, "would": sql}, *script)
            return
        if any(statement.startswith("REVOKE") for statement in sql):
            asking.agreed("Do it?", script, sql, yes=yes, dry_run=False, json=json)
        client.database.run(lambda tx: grants.apply(tx.connection, sql))
    table = output.Table(("ROLE", "IS FOR"), list(grants.ROLES.items()))
    document = {"changed": bool(sql), "did": sql, "roles": list(grants.ROLES)}
    said = f"{len(sql)} statements were run." if sql else "All is as it should be."
    output.answer(json, document, table, said)
