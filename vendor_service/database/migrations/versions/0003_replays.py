"""Replays are counted, holds know that their charge was given back, and so do the spend limits."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Refunds, which are few and found by an index, and the charges that they gave back.
_REFUNDED = (
    "FROM ledger_entries AS refunds JOIN ledger_entries AS charges "
    "ON charges.account_id = refunds.account_id AND charges.seq = refunds.corrects_seq"
)
# By table, whose refunds they are, and which of them.
_OWNERS = {
    "accounts": "refunds.account_id = accounts.id",
    "api_keys": "refunds.account_id = api_keys.account_id AND charges.key_id = api_keys.id",
}


def upgrade() -> None:
    op.add_column("holds", sa.Column("replays", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("holds", sa.Column("refunded_at", sa.BigInteger(), nullable=True))
    op.execute(
        f"UPDATE holds SET refunded_at = (SELECT refunds.created_at {_REFUNDED} "  # noqa: S608
        "WHERE charges.hold_id = holds.id AND refunds.account_id = holds.account_id) "
        f"WHERE id IN (SELECT charges.hold_id {_REFUNDED})"
    )
    _count_refunds("-")


# Former versions know no end of a plan's price: the price that held then for everybody stands in its place.
_PRICE_INSTEAD = (
    "(SELECT held.micros FROM prices AS held WHERE held.plan = 'standard' AND held.model = prices.model "
    "AND held.kind = prices.kind AND held.micros >= 0 AND held.effective_at <= prices.effective_at "
    "ORDER BY held.effective_at DESC LIMIT 1)"
)


def downgrade() -> None:
    op.execute(f"UPDATE prices SET micros = coalesce({_PRICE_INSTEAD}, micros) WHERE micros < 0")  # noqa: S608
    op.execute("DELETE FROM prices WHERE micros < 0")
    _count_refunds("+")
    op.drop_column("holds", "refunded_at")
    op.drop_column("holds", "replays")


def _count_refunds(sign: str) -> None:
    """Take what was given back in the present period out of what was spent in it, or put it in again."""
    for table, whose in _OWNERS.items():
        op.execute(
            f"UPDATE {table} SET spent_micros = spent_micros {sign} "  # noqa: S608
            f"(SELECT coalesce(sum(-charges.amount_micros), 0) {_REFUNDED} WHERE {whose} "
            f"AND refunds.corrects_seq IS NOT NULL AND charges.created_at >= {table}.period_started_at)"
        )
