"""What the pieces of a file keep of lines that cannot be asked: it counts against its account's room."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("files", sa.Column("fault_bytes", sa.BigInteger(), server_default="0", nullable=False))
    # Until now they were ASCII.
    op.execute(
        "UPDATE files SET fault_bytes = "
        "(SELECT sum(length(faults)) FROM file_pieces WHERE file_id = files.id) "
        "WHERE id IN (SELECT file_id FROM file_pieces WHERE faults IS NOT NULL)"
    )


def downgrade() -> None:
    op.drop_column("files", "fault_bytes")
