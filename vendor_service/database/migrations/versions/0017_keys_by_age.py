"""An account's keys in the order of their issue: a page of them is read without the others."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_api_keys_account_id", "api_keys")
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_api_keys_account_id", "api_keys")
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])
