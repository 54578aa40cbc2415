"""The tree of commands, and the one place where what went wrong becomes an exit code."""

from typing import Any

import typer
from typer.core import TyperGroup

from worker.cli import (
    accounts,
    demo,
    doctor,
    events,
    failures,
    intake,
    jobs,
    keys,
    migrate,
    notices,
    output,
    roles,
    rotations,
    status,
)


class Commands(TyperGroup):
    """Runs the command; whatever it raises that is no fault of this program is told shortly."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except Exception as error:
            failure = failures.explain(error)
            if failure is None:
                raise
            failures.tell(failure, json=ctx.ensure_object(output.State).json)
            raise typer.Exit(failure.exit_code) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same on every terminal, and without Rich's start
    pretty_exceptions_enable=False,
)
for noun in (keys, accounts, rotations, events, notices, roles):
    app.add_typer(noun.app)
app.command("run")(jobs.run)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("migrate")(migrate.migrate)
app.command("intake")(intake.intake)
app.command("demo")(demo.demo)


@app.command()
def up(json: output.Json = False) -> None:
    """Run Keyturn in the foreground; Ctrl-C stops it.

    PostgreSQL and Valkey are started too, unless KEYTURN_DATABASE_URL and KEYTURN_BROKER_URL name
    servers of your own.
    """
    from worker.cli.up import up as run_everything

    run_everything()


@app.callback()
def keyturn(json: output.Json = False) -> None:
    """Cuts, ends, announces and rotates a product's API keys.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 refused, 4 the database's schema is not this
    code's, 5 the database role lacks a grant.
    """
