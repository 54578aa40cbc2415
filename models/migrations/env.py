"""How Alembic runs: on the connection and the metadata that `models.migrations` hands over."""

from alembic import context

attributes = context.config.attributes
schema = attributes["metadata"].schema
context.configure(
    connection=attributes["connection"],
    target_metadata=attributes["metadata"],
    version_table_schema=schema,
    include_schemas=True,
    include_name=lambda name, kind, parents: kind != "schema" or name == schema,
)
with context.begin_transaction():
    context.run_migrations()
