"""Prices by plan, limits and scopes of keys, corrections in the ledger, holds that name their server."""

from typing import Any

import sqlalchemy as sa
from alembic import context, op

from vendor_service.errors import OperatorError

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_KEY_COUNTERS = ("period_started_at", "queries_used", "spent_micros", "queries_held", "held_micros")
_KEY_COLUMNS: dict[str, sa.types.TypeEngine[Any]] = {
    "former_hash": sa.String(64),
    "former_until": sa.BigInteger(),
    "last_used_at": sa.BigInteger(),
    "quota": sa.BigInteger(),
    "spend_limit_micros": sa.BigInteger(),
}


def upgrade() -> None:
    # Columns are added in place: SQLite would lose the ledger's triggers with the table that it copied.
    op.add_column("accounts", sa.Column("plan", sa.String(64), server_default="standard", nullable=False))
    op.add_column("accounts", sa.Column("ledger_at", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("holds", sa.Column("server", sa.String(32), nullable=True))
    op.add_column("ledger_entries", sa.Column("corrects_seq", sa.BigInteger(), nullable=True))
    op.add_column("ledger_entries", sa.Column("reason", sa.String(255), nullable=True))
    op.create_index(
        "uq_ledger_entries_corrects_seq", "ledger_entries", ["account_id", "corrects_seq"], unique=True
    )
    scopes = sa.Column("scopes", sa.String(255), server_default="embed usage:read", nullable=False)
    op.add_column("api_keys", scopes)
    for name, kind in _KEY_COLUMNS.items():
        op.add_column("api_keys", sa.Column(name, kind, nullable=True))
    for name in _KEY_COUNTERS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    _count()
    with op.batch_alter_table("prices") as prices:
        prices.add_column(sa.Column("plan", sa.String(64), server_default="standard", nullable=False))
        prices.drop_constraint("pk_prices", type_="primary")
        prices.create_primary_key("pk_prices", ["plan", "model", "kind", "effective_at"])


def downgrade() -> None:
    corrections = "SELECT count(*) FROM ledger_entries WHERE corrects_seq IS NOT NULL OR reason IS NOT NULL"
    # The way to the base is barred by any entry at all.
    if context.get_revision_argument() and op.get_bind().scalar(sa.text(corrections)):
        raise OperatorError(
            "the ledger has refunds or adjustments, and tables of 0001 no place for what their hashes cover; "
            "stay with this version, or go back to a backup"
        )
    op.execute("DELETE FROM prices WHERE plan <> 'standard'")
    with op.batch_alter_table("prices") as prices:
        prices.drop_constraint("pk_prices", type_="primary")
        prices.create_primary_key("pk_prices", ["model", "kind", "effective_at"])
        prices.drop_column("plan")
    for name in (*_KEY_COUNTERS, *_KEY_COLUMNS, "scopes"):
        op.drop_column("api_keys", name)
    op.drop_index("uq_ledger_entries_corrects_seq", "ledger_entries")
    op.drop_column("ledger_entries", "reason")
    op.drop_column("ledger_entries", "corrects_seq")
    op.drop_column("holds", "server")
    op.drop_column("accounts", "ledger_at")
    op.drop_column("accounts", "plan")


def _count() -> None:
    """Count what each key used and holds, as it will be counted from now on."""
    op.execute(
        "UPDATE accounts SET ledger_at = coalesce((SELECT max(created_at) FROM ledger_entries "
        "WHERE account_id = accounts.id), 0)"
    )
    op.execute(
        "UPDATE api_keys SET period_started_at = "
        "(SELECT period_started_at FROM accounts WHERE id = api_keys.account_id)"
    )
    charged = (
        "FROM ledger_entries WHERE key_id = api_keys.id AND kind = 'charge' "
        "AND created_at >= api_keys.period_started_at"
    )
    held = "FROM holds WHERE key_id = api_keys.id AND state = 'open'"
    op.execute(
        f"UPDATE api_keys SET queries_used = (SELECT coalesce(sum(images + texts), 0) {charged}), "  # noqa: S608
        f"spent_micros = (SELECT coalesce(sum(-amount_micros), 0) {charged}), "
        f"queries_held = (SELECT coalesce(sum(images + texts), 0) {held}), "
        f"held_micros = (SELECT coalesce(sum(cost_micros), 0) {held})"
    )
