"""Running totals of the ledger, final invoices that are stored, references of payments, dates put right."""

import sqlalchemy as sa
from alembic import context, op

from vendor_service.errors import OperatorError

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_HOUR = 3_600_000_000
_GROUP = ("key_id", "model", "model_fingerprint")
_SUMS = ("entries", "image_requests", "text_requests", "images", "texts", "amount_micros")
_ALREADY = "the ledger is append-only: there is an entry of this"


def upgrade() -> None:
    # Columns are added in place: SQLite would lose the ledger's triggers with the table that it copied.
    op.add_column("ledger_entries", sa.Column("reference", sa.String(255), nullable=True))
    op.add_column("ledger_entries", sa.Column("redates_seq", sa.BigInteger(), nullable=True))
    _index("uq_ledger_entries_reference", "reference", unique=True)
    _index("ix_ledger_entries_redates_seq", "redates_seq", unique=False)
    _create_totals()
    op.create_table(
        "final_invoices",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("month", sa.String(7), nullable=False),
        sa.Column("ledger_seq", sa.BigInteger(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_final_invoices_account_id"),
        sa.PrimaryKeyConstraint("account_id", "month", "ledger_seq", name="pk_final_invoices"),
    )
    _forbid_changes()


def downgrade() -> None:
    new = (
        "SELECT count(*) FROM ledger_entries WHERE kind = 'payment' OR reference IS NOT NULL "
        "OR redates_seq IS NOT NULL"
    )
    # The way to the base leaves no entry whose hash could be wrong.
    if context.get_revision_argument() and op.get_bind().scalar(sa.text(new)):
        raise OperatorError(
            "the ledger has payments, references or dates that were put right, and the former tables have no "
            "place for what their hashes cover; stay with this version, or go back to a backup"
        )
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER ledger_refuses_replacement")
    op.drop_table("final_invoices")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_invoice_change()")
    op.drop_table("ledger_totals")
    op.drop_index("ix_ledger_entries_redates_seq", "ledger_entries")
    op.drop_index("uq_ledger_entries_reference", "ledger_entries")
    op.drop_column("ledger_entries", "redates_seq")
    op.drop_column("ledger_entries", "reference")


def _index(name: str, column: str, *, unique: bool) -> None:
    some = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        name,
        "ledger_entries",
        ["account_id", column],
        unique=unique,
        sqlite_where=some,
        postgresql_where=some,
    )


def _create_totals() -> None:
    """Make the totals, and count in them what the ledger has today."""
    op.create_table(
        "ledger_totals",
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("hour", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        *(sa.Column(name, sa.String(255), nullable=False) for name in ("model", "model_fingerprint")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("image_micros", "text_micros")),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*_SUMS, "first_seq", "last_seq")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_ledger_totals_account_id"),
        sa.PrimaryKeyConstraint(
            "account_id",
            "hour",
            "kind",
            *_GROUP,
            "image_micros",
            "text_micros",
            name="pk_ledger_totals",
        ),
    )
    group = ", ".join(f"coalesce({name}, '')" for name in _GROUP)
    op.execute(
        "INSERT INTO ledger_totals (account_id, hour, kind, key_id, model, model_fingerprint, "  # noqa: S608
        "image_micros, text_micros, entries, image_requests, text_requests, images, texts, amount_micros, "
        "first_seq, last_seq) "
        f"SELECT account_id, created_at / {_HOUR}, kind, {group}, image_micros, text_micros, count(*), "
        "sum(CASE WHEN images > 0 THEN 1 ELSE 0 END), sum(CASE WHEN texts > 0 THEN 1 ELSE 0 END), "
        "sum(images), sum(texts), sum(amount_micros), min(seq), max(seq) FROM ledger_entries "
        f"GROUP BY account_id, created_at / {_HOUR}, kind, {group}, image_micros, text_micros"
    )


def _forbid_changes() -> None:
    """Make invoices append-only as the ledger is, and let SQLite's INSERT OR REPLACE replace neither.

    PostgreSQL has no such statement, and its ON CONFLICT DO UPDATE is an update to its triggers.
    """
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION refuse_invoice_change() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'final invoices are append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER invoices_are_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON final_invoices "
            "FOR EACH STATEMENT EXECUTE FUNCTION refuse_invoice_change()"
        )
        return
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER invoices_refuse_{change.lower()} BEFORE {change} ON final_invoices "
            "BEGIN SELECT RAISE(ABORT, 'final invoices are append-only'); END"
        )
    op.execute(
        "CREATE TRIGGER invoices_refuse_replacement BEFORE INSERT ON final_invoices WHEN EXISTS "
        "(SELECT 1 FROM final_invoices WHERE rowid = NEW.rowid) OR EXISTS "
        "(SELECT 1 FROM final_invoices WHERE account_id = NEW.account_id AND month = NEW.month "
        "AND ledger_seq = NEW.ledger_seq) "
        "BEGIN SELECT RAISE(ABORT, 'final invoices are append-only'); END"
    )
    # A row is replaced for any unique value that it has: each of them, and the hidden rowid.
    mine = "account_id = NEW.account_id AND"
    clashes = {
        "rowid": "rowid = NEW.rowid",
        "seq": f"{mine} seq = NEW.seq",
        "hold_id": "hold_id = NEW.hold_id",
        "corrects_seq": f"{mine} corrects_seq = NEW.corrects_seq",
        "reference": f"{mine} reference = NEW.reference",
    }
    refusals = " ".join(
        f"SELECT RAISE(ABORT, '{_ALREADY} {name}') WHERE EXISTS "  # noqa: S608
        f"(SELECT 1 FROM ledger_entries WHERE {clash});"
        for name, clash in clashes.items()
    )
    op.execute(
        f"CREATE TRIGGER ledger_refuses_replacement BEFORE INSERT ON ledger_entries BEGIN {refusals} END"
    )
