"""`keyturn run JOB`: one scheduled job, here and now."""

from typing import Annotated

import typer

from models.errors import NotFound
from worker.cli import output, session
from worker.cli.output import Json


def run(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Its name, like keys.expire_due.")],
    json: Json = False,
) -> None:
    """Run one job of the schedule now, in this process.

    It does what is due, as a worker would. Nothing happens where it runs elsewhere just now, or
    while a clock is suspect and the job is one that cannot be undone.
    """
    import tasks

    known = tasks.flows()
    if job not in known:
        names = ", ".join(sorted(known))
        raise NotFound("job_unknown", f"there is no job {job!r}; choose one of: {names}")
    from worker import checks, setup

    settings = session.settings()
    checks.schema(settings)
    runtime = setup.runtime(settings)
    try:
        changed = tasks.run(known[job], runtime)
    finally:
        runtime.database.close()
    output.answer(json, {"job": job, "changed": changed}, f"{job}: {changed} changed")
