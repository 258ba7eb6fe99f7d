"""Which lines a chunk of a bulk job has: its receipt names them when the file is gone."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_NAMES = ("first_line", "lines")


def upgrade() -> None:
    for name in _NAMES:
        op.add_column("batch_chunks", sa.Column(name, sa.BigInteger(), nullable=True))
        # Of a file that was deleted before, nobody knows them any more.
        op.execute(
            f"UPDATE batch_chunks SET {name} = (SELECT pieces.{name} FROM file_pieces AS pieces "  # noqa: S608 - names of this file
            "JOIN batches ON batches.input_file_id = pieces.file_id "
            "WHERE batches.id = batch_chunks.batch_id AND pieces.number = batch_chunks.number)"
        )


def downgrade() -> None:
    # The former version knows of no chunk that has no row yet.
    op.execute(
        "INSERT INTO batch_chunks "
        "(batch_id, number, state, leased_until, failures, output_bytes, error_bytes) "
        "SELECT batches.id, pieces.number, 'waiting', 0, 0, 0, 0 FROM batches "
        "JOIN file_pieces AS pieces ON pieces.file_id = batches.input_file_id "
        "WHERE batches.state = 'in_progress' AND NOT EXISTS (SELECT 1 FROM batch_chunks AS chunks "
        "WHERE chunks.batch_id = batches.id AND chunks.number = pieces.number)"
    )
    for name in _NAMES:
        op.drop_column("batch_chunks", name)
