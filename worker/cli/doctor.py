"""`keyturn doctor`: whether the promises are kept."""

from typing import Annotated

import typer

from worker.cli import failures, output, session
from worker.cli.output import Json


def doctor(
    full: Annotated[
        bool, typer.Option("--full", help="Look at everything, not only at what may have changed.")
    ] = False,
    json: Json = False,
) -> None:
    """Check every promise against the database.

    Nothing is written or locked. Exit code 0 if all are kept, 1 if one is broken: then the first
    ids of what breaks it are shown.
    """
    from models import invariants
    from worker.schedule import schedule

    settings = session.settings()
    with session.operator(settings) as client:
        found = invariants.check(
            client.database,
            client.policy,
            full=full,
            tolerance=invariants.Tolerance.of(schedule(settings)),
        )
    broken = {one.name: f"NO: {one.count}" for one in found}
    rows = [
        (promise.name, broken.get(promise.name, "yes"), promise.sentence)
        for promise in invariants.PROMISES
    ]
    table = output.Table(("PROMISE", "KEPT", "WHICH SAYS"), rows, whole=frozenset({"PROMISE"}))
    ids = [f"{one.name}: {', '.join(one.rows)}" for one in found]
    document = {"kept": not found, "full": full, "broken": found}
    output.answer(json, document, table, *ids)
    if found:
        raise typer.Exit(failures.FAILED)
