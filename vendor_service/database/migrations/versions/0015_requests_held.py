"""The requests of a key that are in flight, counted anew: 0011 took bulk jobs for some at first."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(
        "UPDATE api_keys SET requests_held = "
        "(SELECT count(*) FROM holds WHERE key_id = api_keys.id AND state = 'open' "
        "AND (server IS NULL OR server <> 'bulk'))"
    )


def downgrade() -> None:
    pass  # the former version counts them so as well
