"""A PostgreSQL of its own in which roles may be made, and a login of every group role."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from models import grants, migrations
from models.base import Database
from tests.servers import FAST, temporary_home
from worker.embedded.default_secrets import make_default_secrets
from worker.embedded.postgres import Postgres

LOGINS: Final = {role: f"{role}_login" for role in grants.ROLES}
"""Who logs in as a member of which group role."""

_OWNER: Final = "://keyturn@"


@contextmanager
def own_cluster() -> Iterator[Postgres]:
    """Roles belong to the whole server: one that others use would not be as it was before."""
    with temporary_home() as home:
        secrets_dir = make_default_secrets(home)
        server = Postgres(home, options=FAST)
        server.start()
        migrations.upgrade(server.url())
        server.set_for_database("keyturn.secrets_dir", str(secrets_dir))
        try:
            yield server
        finally:
            server.stop()


def make_roles(server: Postgres) -> None:
    """What `keyturn db roles` does, and a login for each role, as an administrator makes it."""
    database = Database(server.url(), pool_size=0)
    with database.begin() as tx:
        connection = tx.connection
        grants.apply(connection, grants.statements(connection))
        for role, login in LOGINS.items():
            tx.execute(f"CREATE ROLE {login} LOGIN IN ROLE {role}")


def url_of(role: str, owners_url: str) -> str:
    """The address of the database for the login of a group role."""
    assert _OWNER in owners_url
    return owners_url.replace(_OWNER, f"://{LOGINS[role]}@")
