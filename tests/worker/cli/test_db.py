"""`keyturn db roles`, and what a command says that lacks a grant."""

import json
from collections.abc import Iterator

import psycopg
import pytest

from models.grants import GRANTS, INTAKE, OPS, ROLES, VERIFY, WORKER
from tests.roles import make_roles, own_cluster, url_of
from tests.worker.cli.conftest import ADA, Cli
from worker.embedded.postgres import Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with own_cluster() as started:
        yield started


@pytest.fixture
def db(
    bare_cli: Cli, server: Postgres, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    """Commands of the owner of a server that has none of the roles."""
    monkeypatch.setenv("KEYTURN_DATABASE_URL", server.url())
    monkeypatch.setenv("KEYTURN_BROKER_URL", broker_url)
    monkeypatch.setenv("KEYTURN_SECRETS_DIR", str(server.home.path / "secrets"))
    bare_cli.ok("migrate")
    yield bare_cli
    with server.connect("keyturn") as connection:
        found = connection.execute("SELECT rolname FROM pg_roles WHERE rolname ~ '^keyturn_'")
        for (name,) in found.fetchall():
            connection.execute(f"DROP OWNED BY {name}".encode())
            connection.execute(f"DROP ROLE {name}".encode())


def logins(monkeypatch: pytest.MonkeyPatch, server: Postgres, role: str) -> None:
    monkeypatch.setenv("KEYTURN_DATABASE_URL", url_of(role, server.url()))


def refused(cli: Cli, *command: str) -> str:
    """The message of a command that lacks a grant."""
    result = cli(*command, "--json")
    assert result.exit_code == 5, result.output
    error = json.loads(result.stdout)["error"]
    assert error["code"] == "grant_missing"
    return str(error["message"])


def test_the_roles_are_made_once(db: Cli) -> None:
    first = db.json("db", "roles")
    assert first["changed"] is True
    assert first["roles"] == list(ROLES)
    assert sum(one.startswith("CREATE ROLE") for one in first["did"]) == len(ROLES)
    assert db.json("db", "roles") == {"changed": False, "did": [], "roles": list(ROLES)}
    assert "All is as it should be." in db.ok("db", "roles")


def test_the_printed_sql_does_it(db: Cli, server: Postgres) -> None:
    """Who may not make roles hands it to an administrator."""
    script = db.ok("db", "roles", "--dry-run")
    assert db.json("db", "roles", "--dry-run")["would"] == script.replace(";", "").splitlines()
    with server.connect("keyturn") as connection:
        assert not connection.execute("SELECT FROM pg_roles WHERE rolname ~ '^keyturn_'").rowcount
        connection.execute(script.encode())
    assert db.ok("db", "roles", "--dry-run").strip() == ""
    assert db.json("db", "roles")["changed"] is False


def test_something_is_taken_only_after_a_question(db: Cli, server: Postgres) -> None:
    db.ok("db", "roles")
    with server.connect("keyturn") as connection:
        connection.execute("GRANT DELETE ON keyturn.audit TO keyturn_worker")
    asked = db("db", "roles")
    assert asked.exit_code == 2
    assert "REVOKE ALL ON keyturn.audit FROM keyturn_worker;" in asked.stderr
    assert "REVOKE" in db.ok("db", "roles", "--dry-run")
    taken = db.json("db", "roles", "--yes")
    assert taken["did"] == [
        "REVOKE ALL ON keyturn.audit FROM keyturn_worker",
        "GRANT INSERT, SELECT ON keyturn.audit TO keyturn_worker",
    ]
    assert db.json("db", "roles")["changed"] is False


def test_a_role_that_is_more_than_a_group_is_refused(db: Cli, server: Postgres) -> None:
    with server.connect() as connection:
        connection.execute("CREATE ROLE keyturn_ops LOGIN")
    assert db.refusal("db", "roles") == "role_unsuitable"


def test_the_owner_of_a_schema_needs_no_more_once_the_roles_are_there(
    db: Cli, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who may not create roles is told, and how to go on; with the roles there, all is well."""
    with server.connect("keyturn") as connection:
        connection.execute("CREATE ROLE keyturn_migrator LOGIN")
        connection.execute("GRANT CREATE ON DATABASE keyturn TO keyturn_migrator")
        connection.execute("GRANT USAGE, CREATE ON SCHEMA keyturn TO keyturn_migrator")
        connection.execute("GRANT SELECT ON keyturn.alembic_version TO keyturn_migrator")
    mine = server.url().replace("://keyturn@", "://keyturn_migrator@")
    monkeypatch.setenv("KEYTURN_DATABASE_URL", mine)
    assert "--dry-run prints the SQL" in refused(db, "db", "roles")
    with server.connect("keyturn") as connection:
        for role in ROLES:
            connection.execute(f"CREATE ROLE {role} NOLOGIN".encode())
    assert "keyturn_migrator" in refused(db, "db", "roles", "--yes")
    with server.connect("keyturn") as connection:
        for name in GRANTS:
            if not name.endswith("_seq"):
                connection.execute(f"ALTER TABLE keyturn.{name} OWNER TO keyturn_migrator".encode())
        connection.execute("ALTER SCHEMA keyturn OWNER TO keyturn_migrator")
    try:
        assert db.json("db", "roles")["changed"] is True
        assert db.json("migrate")["revision"]
    finally:
        with server.connect("keyturn") as connection:
            connection.execute("REASSIGN OWNED BY keyturn_migrator TO keyturn")


@pytest.mark.parametrize(
    ("role", "command", "lacks"),
    [
        (VERIFY, ["keys", "list"], ("SELECT on keyturn.alembic_version", OPS)),
        (INTAKE, ["keys", "list"], ("SELECT, UPDATE (", "on keyturn.api_keys", OPS)),
        (INTAKE, ["doctor"], ("SELECT on keyturn.", OPS)),
        (
            WORKER,
            ["accounts", "create", "bob@example.com", "--role", "member"],
            ("INSERT", "on keyturn.accounts", OPS),
        ),
        (OPS, ["run", "upkeep.retention"], ("DELETE on keyturn.", WORKER)),
        (OPS, ["migrate"], ("keyturn", "owner")),
    ],
)  # fmt: skip
def test_the_missing_grant_is_named(
    db: Cli,
    server: Postgres,
    monkeypatch: pytest.MonkeyPatch,
    role: str,
    command: list[str],
    lacks: tuple[str, str],
) -> None:
    if not db.json("accounts", "list"):
        db.ok("accounts", "create", ADA, "--role", "member")
    make_roles(server)
    logins(monkeypatch, server, role)
    message = refused(db, *command)
    assert f"{role}_login" in message
    for word in lacks:
        assert word in message


def test_operators_need_no_more_than_their_role(
    db: Cli, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_roles(server)
    db.ok("accounts", "create", "eve@example.com", "--role", "member")
    db.ok("run", "upkeep.seal_audit")
    logins(monkeypatch, server, OPS)
    db.ok("accounts", "create", "eva@example.com", "--role", "member")
    key = db.new_key(user="eve@example.com")
    assert db("keys", "verify", stdin=key["text"]).exit_code == 0
    rotation = db.json("keys", "rotate", key["id"])
    successor = db.json("keys", "claim", stdin=key["text"])
    assert db("keys", "verify", stdin=successor["text"]).exit_code == 0
    db.ok("rotations", "cancel", rotation["id"], "--yes")
    db.ok("keys", "disable", key["id"], "--yes")
    db.ok("keys", "enable", key["id"])
    db.ok("accounts", "link", "eve@example.com", "okta:00u1")
    db.ok("accounts", "disable", "eve@example.com", "--yes")
    db.ok("accounts", "enable", "eve@example.com")
    db.ok("keys", "delete", key["id"], "--yes")
    for read in ("keys", "accounts", "rotations", "events", "notices", "roles"):
        db.ok(read, "list")
    for command in (["status"], ["metrics"], ["audit", "verify"], ["audit", "anchor"]):
        db.ok(*command)
    assert db.json("doctor", "--full")["kept"] is True


def test_a_login_without_any_role_is_told_of_the_schema(
    db: Cli, server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_roles(server)
    with server.connect() as connection:
        connection.execute("CREATE ROLE keyturn_stranger LOGIN")
    monkeypatch.setenv(
        "KEYTURN_DATABASE_URL", server.url().replace("://keyturn@", "://keyturn_stranger@")
    )
    assert "USAGE on the schema keyturn" in refused(db, "status")


def test_the_owner_is_still_the_owner(server: Postgres) -> None:
    with psycopg.connect(server.url()) as connection:
        owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'keyturn'"
        assert connection.execute(owner).fetchone() == ("keyturn",)
