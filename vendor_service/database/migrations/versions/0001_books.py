"""Accounts, keys, holds, the ledger and prices."""

import sqlalchemy as sa
from alembic import op

from vendor_service.errors import OperatorError

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_accounts()
    _create_keys()
    _create_holds()
    _create_ledger()
    op.create_table(
        "prices",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("effective_at", sa.BigInteger(), nullable=False),
        sa.Column("micros", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("model", "kind", "effective_at", name="pk_prices"),
    )


def downgrade() -> None:
    entries = op.get_bind().scalar(sa.text("SELECT count(*) FROM ledger_entries"))
    if entries:
        raise OperatorError(
            f"the ledger has {entries} entries, and a ledger is never erased; "
            "to begin anew, let VENDOR_DATABASE_URL name another database"
        )
    op.drop_table("prices")
    op.drop_table("ledger_entries")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_ledger_change()")
    op.drop_table("holds")
    op.drop_table("api_keys")
    op.drop_table("accounts")


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("quota", sa.BigInteger(), nullable=True),
        sa.Column("quota_period", sa.String(8), nullable=False),
        sa.Column("spend_limit_micros", sa.BigInteger(), nullable=True),
        sa.Column("credit_micros", sa.BigInteger(), nullable=True),
        sa.Column("queries_per_second", sa.BigInteger(), nullable=True),
        sa.Column("period_started_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queries_used", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("spent_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("queries_held", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("held_micros", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rate_tokens", sa.BigInteger(), nullable=False),
        sa.Column("rate_refilled_at", sa.BigInteger(), nullable=False),
        sa.Column("ledger_seq", sa.BigInteger(), nullable=False),
        sa.Column("ledger_hash", sa.String(64), nullable=False),
        sa.CheckConstraint(
            "queries_held >= 0 AND held_micros >= 0", name=op.f("ck_accounts_held_is_not_negative")
        ),
        sa.CheckConstraint(
            "queries_used >= 0 AND spent_micros >= 0", name=op.f("ck_accounts_used_is_not_negative")
        ),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
    )


def _create_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("label", sa.String(255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_api_keys_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
    )
    op.create_index("ix_api_keys_account_id", "api_keys", ["account_id"])


def _create_holds() -> None:
    op.create_table(
        "holds",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("model_fingerprint", sa.String(255), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("texts", sa.BigInteger(), nullable=False),
        sa.Column("image_micros", sa.BigInteger(), nullable=False),
        sa.Column("text_micros", sa.BigInteger(), nullable=False),
        sa.Column("cost_micros", sa.BigInteger(), nullable=False),
        sa.Column("idempotency_key", sa.String(255), nullable=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_holds_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_holds_key_id"),
        sa.PrimaryKeyConstraint("id", name="pk_holds"),
    )
    live, still_open = sa.text("state <> 'voided'"), sa.text("state = 'open'")
    op.create_index(
        "uq_holds_live_idempotency_key",
        "holds",
        ["account_id", "idempotency_key"],
        unique=True,
        sqlite_where=live,
        postgresql_where=live,
    )
    op.create_index(
        "ix_holds_open_expiry", "holds", ["expires_at"], sqlite_where=still_open, postgresql_where=still_open
    )


def _create_ledger() -> None:
    op.create_table(
        "ledger_entries",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("amount_micros", sa.BigInteger(), nullable=False),
        sa.Column("images", sa.BigInteger(), nullable=False),
        sa.Column("texts", sa.BigInteger(), nullable=False),
        sa.Column("image_micros", sa.BigInteger(), nullable=False),
        sa.Column("text_micros", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(255), nullable=True),
        sa.Column("model_fingerprint", sa.String(255), nullable=True),
        sa.Column("key_id", sa.String(32), nullable=True),
        sa.Column("hold_id", sa.String(64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("entry_hash", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_ledger_entries_account_id"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_ledger_entries_key_id"),
        sa.ForeignKeyConstraint(["hold_id"], ["holds.id"], name="fk_ledger_entries_hold_id"),
        sa.PrimaryKeyConstraint("account_id", "seq", name="pk_ledger_entries"),
        sa.UniqueConstraint("hold_id", name="uq_ledger_entries_hold_id"),
    )
    op.create_index("ix_ledger_entries_created_at", "ledger_entries", ["account_id", "created_at"])
    _forbid_changes()


def _forbid_changes() -> None:
    """Make the ledger append-only for everyone, the program included."""
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_ledger_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER ledger_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger_entries "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_ledger_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER ledger_refuses_{change.lower()} BEFORE {change} ON ledger_entries "
            "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
        )
