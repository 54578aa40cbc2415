"""`keyturn migrate`: brings the database to this code's schema."""

from worker.cli import output, session
from worker.cli.output import Json


def migrate(json: Json = False) -> None:
    """Bring the database to this code's schema.

    Its roles become those of the settings. Safe to repeat. A database that is newer than this code
    is left as it is (exit code 4).
    """
    from alembic.util import CommandError

    from models import migrations
    from worker import checks, setup

    settings = session.settings()
    try:
        setup.prepare(settings)
    except CommandError:
        checks.schema(settings)  # says that it is newer, if it is that
        raise
    revision = migrations.head()
    output.answer(json, {"revision": revision}, f"The database is at revision {revision}.")
