"""Projects, limits and ends of keys, partial refunds, a currency, invoice numbers, notices of models."""

import sqlalchemy as sa
from alembic import op

from vendor_service.errors import OperatorError

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_COUNTERS = ("period_started_at", "queries_used", "spent_micros", "queries_held", "held_micros")
_KEY_LIMITS = ("queries_per_second", "concurrency", "expires_at")
_KEY_COUNTERS = ("rate_tokens", "rate_refilled_at", "requests_held")


def upgrade() -> None:
    # Columns are added in place: SQLite would lose the ledger's triggers with the table that it copied.
    _create_projects()
    op.execute(
        "ALTER TABLE api_keys ADD COLUMN project_id VARCHAR(32) "
        "CONSTRAINT fk_api_keys_project_id REFERENCES projects (id)"
    )
    for name in _KEY_LIMITS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), nullable=True))
    for name in _KEY_COUNTERS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    op.execute(
        "UPDATE api_keys SET requests_held = "
        "(SELECT count(*) FROM holds WHERE key_id = api_keys.id AND state = 'open')"
    )
    for table in ("holds", "ledger_entries"):
        op.add_column(table, sa.Column("project_id", sa.String(32), nullable=True))
    some = sa.text("corrects_seq IS NOT NULL")
    op.create_index(
        "ix_ledger_entries_corrects_seq",
        "ledger_entries",
        ["account_id", "corrects_seq"],
        sqlite_where=some,
        postgresql_where=some,
    )
    op.drop_index("uq_ledger_entries_corrects_seq", "ledger_entries")
    _refuse_replacement(once=("rowid", "seq", "hold_id", "reference"))
    op.add_column("final_invoices", sa.Column("number", sa.BigInteger(), nullable=True))
    numbered = sa.text("number IS NOT NULL")
    op.create_index(
        "uq_final_invoices_number",
        "final_invoices",
        ["number"],
        unique=True,
        sqlite_where=numbered,
        postgresql_where=numbered,
    )
    op.create_table(
        "books_head",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("currency", sa.String(3), nullable=True),
        sa.Column("invoices_issued", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_books_head"),
    )
    op.execute("INSERT INTO books_head (id, invoices_issued) VALUES (1, 0)")
    op.create_table(
        "model_notices",
        sa.Column("model", sa.String(255), nullable=False),
        sa.Column("deprecated_at", sa.BigInteger(), nullable=False),
        sa.Column("sunset_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("model", name="pk_model_notices"),
    )


def downgrade() -> None:
    kept = {
        "entries of projects": "SELECT count(*) FROM ledger_entries WHERE project_id IS NOT NULL",
        "refunds of a part": (
            "SELECT count(*) FROM ledger_entries AS refunds JOIN ledger_entries AS charges "
            "ON charges.account_id = refunds.account_id AND charges.seq = refunds.corrects_seq "
            "WHERE refunds.amount_micros <> -charges.amount_micros OR refunds.reference IS NOT NULL"
        ),
        "numbered invoices": "SELECT count(*) FROM final_invoices WHERE number IS NOT NULL",
    }
    for what, counting in kept.items():
        if op.get_bind().scalar(sa.text(counting)):
            raise OperatorError(
                f"the books have {what}, and the former tables have no place for them; "
                "stay with this version, or go back to a backup"
            )
    op.drop_table("model_notices")
    op.drop_table("books_head")
    op.drop_index("uq_final_invoices_number", "final_invoices")
    op.drop_column("final_invoices", "number")
    _refuse_replacement(once=("rowid", "seq", "hold_id", "corrects_seq", "reference"))
    op.drop_index("ix_ledger_entries_corrects_seq", "ledger_entries")
    op.create_index(
        "uq_ledger_entries_corrects_seq", "ledger_entries", ["account_id", "corrects_seq"], unique=True
    )
    op.drop_column("ledger_entries", "project_id")
    op.drop_column("holds", "project_id")
    for name in (*_KEY_COUNTERS, *_KEY_LIMITS, "project_id"):
        op.drop_column("api_keys", name)
    op.drop_table("projects")


def _create_projects() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("account_id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        *(
            sa.Column(name, sa.BigInteger(), nullable=True)
            for name in ("archived_at", "quota", "spend_limit_micros", "queries_per_second")
        ),
        *(sa.Column(name, sa.BigInteger(), server_default="0", nullable=False) for name in _COUNTERS),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in ("rate_tokens", "rate_refilled_at")),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_projects_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
        sa.UniqueConstraint("account_id", "name", name="uq_projects_account_id_name"),
    )


def _refuse_replacement(once: tuple[str, ...]) -> None:
    """Let SQLite's INSERT OR REPLACE replace no entry for a value that it has `once`; see 0004."""
    if op.get_bind().dialect.name == "postgresql":
        return
    whose = {
        name: "" if name in ("rowid", "hold_id") else "account_id = NEW.account_id AND " for name in once
    }
    refusals = " ".join(
        f"SELECT RAISE(ABORT, 'the ledger is append-only: there is an entry of this {name}') WHERE EXISTS "  # noqa: S608
        f"(SELECT 1 FROM ledger_entries WHERE {mine}{name} = NEW.{name});"
        for name, mine in whose.items()
    )
    op.execute("DROP TRIGGER ledger_refuses_replacement")
    op.execute(
        f"CREATE TRIGGER ledger_refuses_replacement BEFORE INSERT ON ledger_entries BEGIN {refusals} END"
    )
