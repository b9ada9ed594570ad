"""Run the revisions, then every file of `sql/`, in one transaction on the connection handed in."""

from alembic import context

from rec_pkg import schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table_schema="rec",
    include_schemas=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    schema.prepare(connection)
    context.run_migrations()
    schema.apply_sql(connection)
