"""The tree of commands, and the one place where what went wrong becomes an exit code."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from worker.cli import (
    accounts,
    addresses,
    audit,
    db,
    demo,
    doctor,
    events,
    failures,
    imports,
    intake,
    jobs,
    keys,
    metrics,
    migrate,
    notices,
    output,
    policies,
    reconcile,
    roles,
    rotation_decisions,
    rotation_plans,
    rotations,
    secret_versions,
    status,
    tenants,
    why,
)


class Commands(TyperGroup):
    """Runs the command; whatever it raises that is no fault of this program is told shortly."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _hiding_secrets():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        try:
            with _hiding_secrets():
                return super().invoke(ctx)
        except Exception as error:
            failure = failures.explain(error)
            if failure is None:
                raise
            failures.tell(failure, json=ctx.ensure_object(output.State).json)
            raise typer.Exit(failure.exit_code) from None


@contextmanager
def _hiding_secrets() -> Iterator[None]:
    """A key typed where none belongs is not repeated: what is on a screen is kept in CI's logs."""
    try:
        yield
    except TyperException as error:
        if isinstance(message := getattr(error, "message", None), str):
            from worker.logs import redactor

            error.message = redactor("kt")(message)
        raise


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: the same on every terminal, and without Rich's start
    pretty_exceptions_enable=False,
)
for noun in (keys, accounts, tenants, rotation_plans, events, notices, roles):
    app.add_typer(noun.app)
for noun in (audit, db, secret_versions):
    app.add_typer(noun.app)
for verb in rotation_decisions.VERBS:
    rotations.app.command()(verb)
keys.app.command("policy")(policies.of_key)
keys.app.command("import")(imports.import_keys)
accounts.app.command("email")(addresses.email)
accounts.app.command("import")(imports.import_accounts)
accounts.app.command("reconcile")(reconcile.reconcile)
accounts.app.command("policy")(policies.of_account)
app.command("run")(jobs.run)
app.command("status")(status.status)
app.command("doctor")(doctor.doctor)
app.command("why")(why.why)
app.command("metrics")(metrics.metrics)
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
