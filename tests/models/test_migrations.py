"""The migrations make what the tables say, once, and know which schema is there."""

import threading

import pytest
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from models import migrations, schema_version
from models.base import Database


def test_the_migrations_make_exactly_the_tables(database_url: str) -> None:
    assert migrations.differences(database_url) == []


def test_the_expected_schema_is_that_of_the_newest_migration() -> None:
    assert migrations.head() == schema_version.EXPECTED


def test_migrating_twice_and_at_once_is_harmless(empty_database_url: str) -> None:
    errors: list[BaseException] = []

    def upgrade() -> None:
        try:
            migrations.upgrade(empty_database_url)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with create_engine(empty_database_url, poolclass=NullPool).connect() as connection:
        schema_version.check(connection)


def test_nothing_outside_our_schema_is_touched(empty_database_url: str) -> None:
    database = Database(empty_database_url, pool_size=0)
    with database.begin() as tx:
        tx.execute("CREATE TABLE public.accounts (id int)")
    migrations.upgrade(empty_database_url)
    with database.begin() as tx:
        found = tx.execute(
            "SELECT DISTINCT table_schema FROM information_schema.tables "
            "WHERE table_schema NOT IN ('pg_catalog', 'information_schema') ORDER BY 1"
        )
        assert list(found.scalars()) == ["keyturn", "public"]
        assert tx.scalar("SELECT count(*) FROM public.accounts") == 0


@pytest.mark.parametrize(
    ("revision", "mend"), [("0000", "keyturn migrate"), ("9999", "upgrade Keyturn")]
)
def test_another_schema_is_refused_with_the_mend(
    database_url: str, revision: str, mend: str
) -> None:
    with create_engine(database_url, poolclass=NullPool).connect() as connection:
        connection.exec_driver_sql(f"UPDATE keyturn.alembic_version SET version_num = '{revision}'")
        with pytest.raises(schema_version.WrongSchema, match=mend):
            schema_version.check(connection)


def test_no_schema_is_refused_with_the_mend(empty_database_url: str) -> None:
    with (
        create_engine(empty_database_url, poolclass=NullPool).connect() as connection,
        pytest.raises(schema_version.WrongSchema, match="keyturn migrate"),
    ):
        schema_version.check(connection)
