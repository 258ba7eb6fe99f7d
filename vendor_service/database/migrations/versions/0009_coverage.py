"""How much of a model's embedding space accounts cover, a limit to it, and sketches of what they asked."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("accounts", sa.Column("coverage_limit", sa.BigInteger(), nullable=True))
    op.add_column(
        "accounts", sa.Column("buckets_covered", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "coverage",
        *_of_an_account_and_model("coverage"),
        sa.Column("buckets", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "model_fingerprint", name="pk_coverage"),
    )
    op.create_table(
        "sketches",
        *_of_an_account_and_model("sketches"),
        sa.Column("key_id", sa.String(16), nullable=False),
        sa.Column("inputs", sa.LargeBinary(), nullable=False),
        sa.Column("moment", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account_id", "model_fingerprint", "key_id", name="pk_sketches"),
    )


def downgrade() -> None:
    op.drop_table("sketches")
    op.drop_table("coverage")
    op.drop_column("accounts", "buckets_covered")
    op.drop_column("accounts", "coverage_limit")


def _of_an_account_and_model(table: str) -> tuple[sa.schema.SchemaItem, ...]:
    return (
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("model_fingerprint", sa.String(255), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name=f"fk_{table}_account_id"),
    )
