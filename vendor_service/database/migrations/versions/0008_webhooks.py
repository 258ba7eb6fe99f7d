"""Webhooks: receivers, events, their deliveries and each try; and what credit was after the last top-up."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("webhook_attempts", "webhook_deliveries", "webhook_events", "webhook_endpoints")


def upgrade() -> None:
    op.add_column("accounts", sa.Column("credit_base_micros", sa.BigInteger(), nullable=True))
    # What was used of the last top-up before is not known: thresholds count from here.
    op.execute("UPDATE accounts SET credit_base_micros = credit_micros WHERE credit_micros > 0")
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("url", sa.String(2048), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=True),
        sa.Column("kinds", sa.String(255), nullable=False),
        sa.Column("secret", sa.String(64), nullable=False),
        sa.Column("former_secret", sa.String(64), nullable=True),
        sa.Column("former_until", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("disabled_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_endpoints"),
    )
    op.create_table(
        "webhook_events",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=True),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_webhook_events"),
    )
    op.create_index("ix_webhook_events_created_at", "webhook_events", ["created_at"])
    op.create_table(
        "webhook_deliveries",
        sa.Column("event_id", sa.String(40), nullable=False),
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=False)
            for name in ("attempts", "tries_left", "next_at", "leased_until")
        ),
        sa.Column("lease", sa.String(32), nullable=True),
        sa.PrimaryKeyConstraint("event_id", "endpoint_id", name="pk_webhook_deliveries"),
    )
    pending = sa.text("state = 'pending'")
    op.create_index(
        "ix_webhook_deliveries_pending",
        "webhook_deliveries",
        ["next_at"],
        sqlite_where=pending,
        postgresql_where=pending,
    )
    op.create_table(
        "webhook_attempts",
        sa.Column("event_id", sa.String(40), nullable=False),
        sa.Column("endpoint_id", sa.String(32), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("number", "at", "milliseconds")),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.String(255), nullable=True),
        sa.PrimaryKeyConstraint("event_id", "endpoint_id", "number", name="pk_webhook_attempts"),
    )


def downgrade() -> None:
    for name in _TABLES:
        op.drop_table(name)
    op.drop_column("accounts", "credit_base_micros")
