"""Who is signed in to the console, invitations to it, and what was refused to accounts."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "console_sessions",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        *(
            sa.Column(name, sa.String(32), nullable=True)
            for name in ("account_id", "key_id", "invitation_id", "token_id")
        ),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("created_at", "last_used_at", "expires_at")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_console_sessions"),
    )
    for name in ("account_id", "expires_at"):
        op.create_index(f"ix_console_sessions_{name}", "console_sessions", [name])
    op.create_table(
        "invitations",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_invitations_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_invitations"),
    )
    op.create_table(
        "refusals",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("code", sa.String(64), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "hour", "code", name="pk_refusals"),
    )
    # An operator's sums of all accounts; those of one account have the primary key.
    op.create_index("ix_ledger_totals_hour", "ledger_totals", ["hour"])
    op.create_index("ix_webhook_events_account_id", "webhook_events", ["account_id", "created_at"])


def downgrade() -> None:
    op.drop_index("ix_webhook_events_account_id", "webhook_events")
    op.drop_index("ix_ledger_totals_hour", "ledger_totals")
    op.drop_table("refusals")
    op.drop_table("invitations")
    op.drop_table("console_sessions")
