"""Replays are counted, holds know that their charge was given back, and so do the spend limits."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# The charges of one account, or of one key, that were given back and are of the period that it counts.
_GIVEN_BACK = (
    "(SELECT coalesce(sum(-charges.amount_micros), 0) FROM ledger_entries AS charges "
    "JOIN ledger_entries AS refunds ON refunds.account_id = charges.account_id "
    "AND refunds.corrects_seq = charges.seq "
    "WHERE charges.{column} = {table}.id AND charges.created_at >= {table}.period_started_at)"
)
_COUNTED = {"accounts": "account_id", "api_keys": "key_id"}


def upgrade() -> None:
    op.add_column("holds", sa.Column("replays", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("holds", sa.Column("refunded_at", sa.BigInteger(), nullable=True))
    op.execute(
        "UPDATE holds SET refunded_at = (SELECT refunds.created_at FROM ledger_entries AS charges "
        "JOIN ledger_entries AS refunds ON refunds.account_id = charges.account_id "
        "AND refunds.corrects_seq = charges.seq WHERE charges.hold_id = holds.id) "
        "WHERE EXISTS (SELECT 1 FROM ledger_entries AS charges "
        "JOIN ledger_entries AS refunds ON refunds.account_id = charges.account_id "
        "AND refunds.corrects_seq = charges.seq WHERE charges.hold_id = holds.id)"
    )
    _count_refunds("-")


def downgrade() -> None:
    _count_refunds("+")
    op.drop_column("holds", "refunded_at")
    op.drop_column("holds", "replays")


def _count_refunds(sign: str) -> None:
    """Take what was given back in the present period out of what was spent in it, or put it in again."""
    for table, column in _COUNTED.items():
        given_back = _GIVEN_BACK.format(table=table, column=column)
        op.execute(f"UPDATE {table} SET spent_micros = spent_micros {sign} {given_back}")  # noqa: S608
