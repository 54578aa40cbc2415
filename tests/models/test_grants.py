"""What each database role may do: all that its process does, and not one verb more."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import event
from sqlalchemy.exc import ProgrammingError

from models import Client, TimeUnit, grants, migrations, roles
from models.base import Base, Database, sqlstate
from models.errors import Refused
from models.grants import INTAKE, OPS, ROLES, VERIFY, WORKER
from models.operator import Operator
from models.policy import Policy
from models.recording import Use
from tests.faults import site as matrix
from tests.faults.flow import Flow
from tests.faults.flows import FLOWS
from tests.roles import make_roles, own_cluster, url_of
from tests.world import ADA, World
from tests.world import ROLES as WORLD_ROLES
from worker.bell import Bell
from worker.embedded.postgres import Postgres

DENIED = "42501"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with own_cluster() as started:
        make_roles(started)
        yield started


@pytest.fixture
def url(server: Postgres) -> str:
    """The owner's address of the database, which is emptied."""
    tables = ", ".join(f"keyturn.{table.name}" for table in Base.metadata.sorted_tables)
    with server.connect("keyturn") as connection:
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE".encode())
    return server.url()


def plan(url: str) -> list[str]:
    with Database(url, pool_size=0).begin() as tx:
        return grants.statements(tx.connection)


def as_owner(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


# The table and the catalogue


def test_every_table_and_sequence_is_in_the_table_of_grants(url: str) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'keyturn'::regnamespace"
            " AND relkind NOT IN ('i', 'I', 'c', 't')"
        )
        assert {name for (name,) in found} == set(grants.GRANTS), (
            "say in models/grants.py who may do what with it; nobody: an empty entry"
        )


def test_no_function_of_the_schema_runs_with_its_owners_rights(url: str) -> None:
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT proname FROM pg_proc WHERE pronamespace = 'keyturn'::regnamespace AND prosecdef"
        ).fetchall()
    assert found == []


def columns(connection: psycopg.Connection) -> dict[str, list[str]]:
    rows = connection.execute(
        "SELECT c.relname, array_agg(a.attname::text ORDER BY attnum) FROM pg_class c"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped"
        " WHERE relnamespace = 'keyturn'::regnamespace AND relkind IN ('r', 'p') GROUP BY 1"
    )
    return dict(rows.fetchall())


def allowed(connection: psycopg.Connection, statement: str, *names: str) -> bool:
    """Whether PostgreSQL lets this session do it; whatever else it says, it had let it."""
    try:
        with connection.transaction(force_rollback=True):
            identifiers = map(sql.Identifier, names)
            connection.execute(sql.SQL(statement).format(*identifiers))
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        return True
    return True


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_the_table_says_and_nothing_else(url: str, role: str) -> None:
    """Every verb on every table, and every column for itself, is really tried."""
    with psycopg.connect(url) as owner:
        tables = columns(owner)
    tried = set()
    with psycopg.connect(url_of(role, url), autocommit=True) as connection:
        for table, names in tables.items():
            on = ("keyturn", table)
            for name in names:
                if allowed(connection, "SELECT {} FROM {}.{} LIMIT 0", name, *on):
                    tried.add((table, "SELECT", name))
                if allowed(connection, "UPDATE {}.{} SET {} = DEFAULT WHERE false", *on, name):
                    tried.add((table, "UPDATE", name))
            for verb, statement in (
                ("INSERT", "INSERT INTO {}.{} DEFAULT VALUES"),
                ("DELETE", "DELETE FROM {}.{} WHERE false"),
                ("TRUNCATE", "TRUNCATE {}.{}"),
                ("ALTER", "ALTER TABLE {}.{} ADD COLUMN extra int"),
                ("DISABLE TRIGGER", "ALTER TABLE {}.{} DISABLE TRIGGER ALL"),
                ("DROP", "DROP TABLE {}.{} CASCADE"),
                ("COMMENT", "COMMENT ON TABLE {}.{} IS NULL"),
            ):
                if allowed(connection, statement, *on):
                    tried.add((table, verb, ""))
        for sequence in set(grants.GRANTS) - set(tables):
            for call in ("nextval", "setval"):
                more = ", 1" if call == "setval" else ""
                assert not allowed(connection, f"SELECT {call}('keyturn.{sequence}'{more})")
        assert not allowed(connection, "CREATE TABLE keyturn.more ()")
        assert not allowed(connection, "DROP SCHEMA keyturn CASCADE")
        assert not allowed(connection, "SET ROLE keyturn")
    assert tried == {
        (table, verb, name)
        for table in tables
        for verb, column in grants.wanted(table, role)
        for name in ([column] if column else tables[table] if verb in _BY_COLUMN else [""])
    }


_BY_COLUMN = ("SELECT", "UPDATE")


NOBODY = (
    "UPDATE keyturn.audit SET actor = DEFAULT WHERE false",
    "DELETE FROM keyturn.audit WHERE false",
    "TRUNCATE keyturn.audit",
    "UPDATE keyturn.audit_seals SET hash = DEFAULT WHERE false",
    "DELETE FROM keyturn.audit_seals WHERE false",
    *(
        f"UPDATE keyturn.api_keys SET {column} = DEFAULT WHERE false"
        for column in ("digest", "pepper", "expires_at", "role", "account_id", "family_id")
    ),
    "DELETE FROM keyturn.api_keys WHERE false",
    "UPDATE keyturn.accounts SET role = DEFAULT WHERE false",
    "UPDATE keyturn.account_identities SET account_id = DEFAULT WHERE false",
    "UPDATE keyturn.roles SET permissions = DEFAULT WHERE false",
    "INSERT INTO keyturn.roles DEFAULT VALUES",
    "DELETE FROM keyturn.inbox_keys WHERE false",
    "DELETE FROM keyturn.holds WHERE false",
)
ONLY_OPS = (
    "UPDATE keyturn.accounts SET email = DEFAULT WHERE false",
    "INSERT INTO keyturn.accounts DEFAULT VALUES",
    "INSERT INTO keyturn.tenants DEFAULT VALUES",
    "INSERT INTO keyturn.tenant_identities DEFAULT VALUES",
    "UPDATE keyturn.accounts SET tenant_id = DEFAULT WHERE false",
)
SUCCESSORS = (
    "INSERT INTO keyturn.api_keys DEFAULT VALUES",
    "INSERT INTO keyturn.rotations DEFAULT VALUES",
)


def test_the_fences_that_matter_most(url: str) -> None:
    """Said once more, so that no entry of the table takes one down unnoticed."""
    for role in ROLES:
        with psycopg.connect(url_of(role, url), autocommit=True) as connection:
            assert [one for one in NOBODY if allowed(connection, one)] == []
            assert [one for one in ONLY_OPS if allowed(connection, one)] == (
                list(ONLY_OPS) if role == OPS else []
            )
            assert [one for one in SUCCESSORS if allowed(connection, one)] == (
                list(SUCCESSORS) if role in (WORKER, OPS) else []
            )
            assert allowed(connection, "SELECT sealed FROM keyturn.rotations LIMIT 0") is (
                role in (WORKER, OPS)
            )
    with psycopg.connect(url_of(INTAKE, url), autocommit=True) as connection:
        for table in ("accounts", "api_keys", "holds", "inbox", "outbox", "audit"):
            assert not allowed(connection, f"SELECT FROM keyturn.{table} LIMIT 0")


def test_nobody_but_the_owner_rewrites_the_audit(url: str) -> None:
    for role in ROLES:
        verbs = {verb for verb, _ in grants.wanted("audit", role)}
        assert verbs <= {"SELECT", "INSERT"}
    as_owner(
        url,
        "CREATE ROLE product LOGIN",
        "GRANT USAGE ON SCHEMA keyturn TO product",
        "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA keyturn TO product",
    )
    try:
        assert plan(url) == [
            f"REVOKE UPDATE ON keyturn.{table} FROM product" for table in sorted(grants.APPEND_ONLY)
        ]
        migrations.upgrade(url)
        assert plan(url) == []
        with psycopg.connect(url.replace("://keyturn@", "://product@"), autocommit=True) as other:
            assert not allowed(other, "UPDATE keyturn.audit SET actor = 'nobody'")
            assert allowed(other, "INSERT INTO keyturn.audit DEFAULT VALUES")
            assert allowed(other, "UPDATE keyturn.accounts SET name = '' WHERE false")
    finally:
        as_owner(url, "DROP OWNED BY product", "DROP ROLE product")


@pytest.mark.parametrize(
    "statement",
    [
        "REVOKE SELECT ON keyturn.accounts FROM keyturn_worker",
        "REVOKE SELECT (email) ON keyturn.accounts FROM keyturn_verify",
        "REVOKE USAGE ON SCHEMA keyturn FROM keyturn_intake",
        "GRANT CREATE ON SCHEMA keyturn TO keyturn_ops",
        "GRANT DELETE ON keyturn.audit TO keyturn_worker",
        "GRANT UPDATE ON keyturn.api_keys TO keyturn_worker",
        "GRANT UPDATE (digest) ON keyturn.api_keys TO keyturn_ops",
        "GRANT SELECT ON keyturn.audit TO keyturn_ops WITH GRANT OPTION",
        "GRANT USAGE ON SEQUENCE keyturn.audit_id_seq TO keyturn_verify",
        "GRANT SELECT ON keyturn.api_keys TO PUBLIC",
        "GRANT USAGE ON SCHEMA keyturn TO PUBLIC",
    ],
)
def test_migrating_gives_and_takes_what_differs(url: str, statement: str) -> None:
    assert plan(url) == []
    as_owner(url, statement)
    assert plan(url) != []
    migrations.upgrade(url)
    assert plan(url) == []


def test_migrating_makes_no_role(server: Postgres) -> None:
    with own_cluster() as fresh:
        migrations.upgrade(fresh.url())
        with fresh.connect() as connection:
            made = connection.execute("SELECT FROM pg_roles WHERE rolname ~ '^keyturn_'")
            assert made.rowcount == 0
            connection.execute("CREATE ROLE keyturn_verify NOLOGIN")
        migrations.upgrade(fresh.url())
        with fresh.connect("keyturn") as connection:
            connection.execute("SET ROLE keyturn_verify")
            connection.execute("SELECT held FROM keyturn.accounts")


def test_two_at_once_do_not_fail_each_other(url: str) -> None:
    as_owner(url, "REVOKE ALL ON ALL TABLES IN SCHEMA keyturn FROM keyturn_worker, keyturn_ops")
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(migrations.upgrade, url) for _ in range(4)]:
            done.result()
    assert plan(url) == []


def test_a_role_that_is_more_than_a_group_is_refused(url: str) -> None:
    as_owner(url, "ALTER ROLE keyturn_ops LOGIN")
    try:
        with pytest.raises(Refused, match="NOLOGIN") as refused:
            plan(url)
        assert refused.value.code == "role_unsuitable"
    finally:
        as_owner(url, "ALTER ROLE keyturn_ops NOLOGIN")


def test_who_is_not_the_owner_is_told_so(url: str) -> None:
    as_owner(url, "REVOKE SELECT ON keyturn.outbox FROM keyturn_ops")
    try:
        with Database(url_of(WORKER, url), pool_size=0).begin() as tx:
            connection = tx.connection
            needed = grants.statements(connection)
            with pytest.raises(grants.NotTheOwner, match="owner"):
                grants.apply(connection, needed)
    finally:
        migrations.upgrade(url)


# Every flow by the roles of those who really run it


class Divided(matrix.Site):
    """A site whose people and processes each have the role that is meant for them."""

    def __init__(self, url: str, policy: Policy) -> None:
        super().__init__(url, policy)
        self.owner = self.database
        self.owner.run(lambda tx: roles.sync(tx, WORLD_ROLES))
        clock = self.clock
        self.database = Database(url_of(WORKER, url), clock=clock)
        self.intake = Database(url_of(INTAKE, url), clock=clock)
        self.operator = Operator(
            url_of(OPS, url),
            keyring=lambda: matrix.KEYRING,
            policy=policy,
            actor="op",
            clock=clock,
        )
        self.product = Client(url_of(VERIFY, url), keyring=lambda: matrix.KEYRING, clock=clock)
        self.refused: list[str] = []
        for database in (self.database, self.intake, self.operator.database, self.product.database):
            database.on_commit = Bell(database, self._publish)
            event.listen(database.engine, "handle_error", self._note)
        self.start_worker()

    def _note(self, context: object) -> None:
        error = getattr(context, "original_exception", None)
        if getattr(error, "sqlstate", "") == DENIED:
            self.refused.append(str(error))

    def close(self) -> None:
        super().close()
        for database in (self.owner, self.intake):
            database.close()
        self.product.close()

    def account(self, email: str, *identities: object) -> None:
        self.operator.create_account(email, "member", identities=identities)  # type: ignore[arg-type]

    def use(self, name: str) -> None:
        text = self.memory.get(f"{name} text")
        assert text is None or self.product.verify(text, record=False) is not None
        self.product.report_use([Use(UUID(self.memory[name]), self.clock.now, "10.0.0.1")])

    @property
    def inlet(self) -> Database:
        return self.intake


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_every_flow_runs_by_the_roles(url: str, flow: Flow) -> None:
    with closing(Divided(url, flow.policy)) as site:
        flow.prepare(site)
        for step in flow.steps:
            step.act(site)
        site.recover()
        assert site.refused == []
        assert site.broken() == []


def test_a_lacking_grant_would_be_seen(url: str) -> None:
    """The test above can fail: without one privilege of the worker's it does."""
    as_owner(url, "REVOKE UPDATE ON keyturn.rotations FROM keyturn_worker")
    try:
        with pytest.raises((AssertionError, ProgrammingError)):
            test_every_flow_runs_by_the_roles(url, FLOWS["rotation_confirmed"])
    finally:
        migrations.upgrade(url)


# The product that only verifies


def test_a_verifying_product_verifies_and_records(url: str) -> None:
    world = World(Database(url))
    world.account()
    with Operator(url_of(OPS, url)) as operator, Client(url_of(VERIFY, url)) as product:
        key = operator.create_api_key("a key", ADA, "viewer", 1, TimeUnit.DAY)
        text = key.text.reveal()
        assert product.verify(text, "192.0.2.7").valid
        product.flush_uses()
        assert operator.key(str(key.id)).last_used_at is not None
        operator.disable_account(ADA)
        assert product.verify(text).reason == "account_held"
        for forbidden in (
            lambda: product.create_api_key("a key", ADA, "viewer", 1, TimeUnit.DAY),
            lambda: product.disable(key.id),
            lambda: product.delete(key.id),
            lambda: product.rotate(key.id),
            lambda: product.claim(text),
            lambda: product.get_api_keys(),
        ):
            with pytest.raises(ProgrammingError) as refused:
                forbidden()
            assert sqlstate(refused.value) == DENIED
    world.database.close()


def test_what_lacks_is_named(url: str) -> None:
    def lacks(role: str, relation: str) -> dict[str, str]:
        with Database(url_of(role, url), pool_size=0).begin() as tx:
            return grants.lacking(tx.connection, relation)

    assert lacks(OPS, "inbox") == {WORKER: "DELETE"}
    assert lacks(INTAKE, "audit") == dict.fromkeys((WORKER, OPS), "INSERT, SELECT")
    assert lacks(VERIFY, "key_uses") == {
        WORKER: "DELETE, INSERT, UPDATE (refused_told_at)",
        OPS: "INSERT",
    }
    assert lacks(WORKER, "accounts") == {
        OPS: "INSERT, UPDATE (email, name, public_key, rotation_policy, tenant_id, tenant_since)"
    }
    assert lacks(OPS, "") == {}
