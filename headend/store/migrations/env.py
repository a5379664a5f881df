"""Alembic's entry point: runs migrations on the connection it is given, in that connection's transaction."""

from alembic import context

from headend.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
