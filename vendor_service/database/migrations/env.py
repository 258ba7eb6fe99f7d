"""What Alembic runs to migrate: on the connection, and in the transaction, of whoever asked for it."""

from alembic import context

from vendor_service.database.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite changes a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
