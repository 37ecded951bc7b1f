"""How Alembic runs the migrations: on the connection, and in the transaction, of whoever holds the migration lock."""

from alembic import context

from helios.store import schema

context.configure(connection=context.config.attributes["connection"], target_metadata=schema.metadata)
with context.begin_transaction():
    context.run_migrations()
