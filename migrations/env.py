"""
Run the revisions, then every file of `sql/`, in one transaction on the connection handed in.

The files belong to the newest revision; at an earlier one no object is made from them.
"""

from alembic import context
from alembic.script import ScriptDirectory

from rec_pkg import schema

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    version_table_schema="rec_internal",
    include_schemas=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    schema.prepare(connection)
    context.run_migrations()
    newest = ScriptDirectory.from_config(context.config).get_current_head()
    if context.get_context().get_current_revision() == newest:
        schema.apply_sql(connection, context.config.attributes["incompatible"])
    else:
        schema.forget_sql(connection)
