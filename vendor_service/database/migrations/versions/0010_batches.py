"""Bulk jobs: files, their pieces, jobs and their chunks."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_TABLES = ("batch_chunks", "batches", "file_pieces", "files")


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        *_numbers("created_at", "expires_at", "bytes"),
        sa.Column("digest", sa.String(64), nullable=True),
        sa.Column("endpoint", sa.String(32), nullable=True),
        sa.Column("model", sa.String(255), nullable=True),
        *_numbers("lines", "images", "texts"),
        sa.Column("batch_id", sa.String(40), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_files"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_files_account_id"),
    )
    op.create_index("ix_files_account_id", "files", ["account_id", "created_at"])
    op.create_index("ix_files_expires_at", "files", ["expires_at"])
    op.create_table(
        "file_pieces",
        sa.Column("file_id", sa.String(40), nullable=False),
        *_numbers("number", "first_byte", "bytes", "first_line", "lines", "images", "texts"),
        sa.Column("faults", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("file_id", "number", name="pk_file_pieces"),
        sa.ForeignKeyConstraint(["file_id"], ["files.id"], name="fk_file_pieces_file_id"),
    )
    _create_batches()
    _create_chunks()
    with op.batch_alter_table("prices") as prices:
        prices.alter_column("kind", type_=sa.String(16), existing_type=sa.String(8), existing_nullable=False)


def _create_batches() -> None:
    op.create_table(
        "batches",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("hold_id", sa.String(64), nullable=False),
        sa.Column("input_file_id", sa.String(40), nullable=False),
        sa.Column("output_file_id", sa.String(40), nullable=True),
        sa.Column("error_file_id", sa.String(40), nullable=True),
        sa.Column("endpoint", sa.String(32), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("model_fingerprint", sa.String(255), nullable=False),
        *_numbers("image_micros", "text_micros"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("labels", sa.Text(), nullable=True),
        sa.Column("idempotency_key", sa.String(255), nullable=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        *_numbers("created_at", "expires_at"),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        *_numbers("claimed_at", "lines", "completed", "failed", "chunks_left", "cost_micros"),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
        sa.UniqueConstraint("account_id", "idempotency_key", name="uq_batches_account_id_idempotency_key"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_batches_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_batches_key_id"),
        sa.ForeignKeyConstraint(["hold_id"], ["holds.id"], name="fk_batches_hold_id"),
    )
    op.create_index("ix_batches_account_id", "batches", ["account_id", "created_at"])
    _create_index_of_some("ix_batches_in_progress", "batches", ["expires_at"], "state = 'in_progress'")


def _create_chunks() -> None:
    op.create_table(
        "batch_chunks",
        sa.Column("batch_id", sa.String(40), nullable=False),
        *_numbers("number"),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("lease", sa.String(32), nullable=True),
        *_numbers("leased_until", "failures"),
        sa.Column("hold_id", sa.String(64), nullable=True),
        sa.Column("part", sa.String(80), nullable=True),
        *_numbers("output_bytes", "error_bytes"),
        sa.Column("request_hash", sa.String(64), nullable=True),
        sa.Column("answer_hash", sa.String(64), nullable=True),
        sa.PrimaryKeyConstraint("batch_id", "number", name="pk_batch_chunks"),
        sa.ForeignKeyConstraint(["batch_id"], ["batches.id"], name="fk_batch_chunks_batch_id"),
        sa.ForeignKeyConstraint(["hold_id"], ["holds.id"], name="fk_batch_chunks_hold_id"),
    )
    _create_index_of_some(
        "ix_batch_chunks_waiting", "batch_chunks", ["batch_id", "number"], "state = 'waiting'"
    )


def downgrade() -> None:
    """The former version releases what bulk jobs hold, and knows no percent of theirs."""
    for name in _TABLES:
        op.drop_table(name)
    op.execute("UPDATE holds SET expires_at = 0 WHERE server = 'bulk' AND state = 'open'")
    op.execute("DELETE FROM prices WHERE kind = 'batch-percent'")
    with op.batch_alter_table("prices") as prices:
        prices.alter_column("kind", type_=sa.String(8), existing_type=sa.String(16), existing_nullable=False)


def _numbers(*names: str) -> tuple[sa.Column[int], ...]:
    return tuple(sa.Column(name, sa.BigInteger(), nullable=False) for name in names)


def _create_index_of_some(name: str, table: str, columns: list[str], which: str) -> None:
    some = sa.text(which)
    op.create_index(name, table, columns, sqlite_where=some, postgresql_where=some)
