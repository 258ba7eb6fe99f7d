"""Who added a receiver of events: what customers add is asked at public addresses alone."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "webhook_endpoints", sa.Column("added_by", sa.String(16), server_default="operator", nullable=False)
    )


def downgrade() -> None:
    # The former version would ask them on private networks that operators allow for receivers of their own.
    op.execute("UPDATE webhook_endpoints SET disabled_at = created_at WHERE added_by = 'customer'")
    op.drop_column("webhook_endpoints", "added_by")
