"""Alembic's environment: migrations run on the caller's connection, in the caller's transaction."""

from alembic import context

from vendor_service.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
