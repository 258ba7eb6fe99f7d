"""All tables, and triggers that keep some of them append-only.

The tables are made as the code declares them, since no version was released yet. The first migration after
a release has to write down here the tables of that release, and to change them from there.
"""

from alembic import op
from sqlalchemy import Index, PrimaryKeyConstraint, Table, UniqueConstraint

from vendor_service.database.tables import (
    GENESIS_HASH,
    AuditEntry,
    AuditHead,
    Base,
    BooksHead,
    FinalInvoice,
    IssuedCreditNote,
    LedgerEntry,
)

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_APPEND_ONLY = {
    LedgerEntry.__tablename__: "the ledger is append-only",
    FinalInvoice.__tablename__: "final invoices are append-only",
    IssuedCreditNote.__tablename__: "credit notes are append-only",
    AuditEntry.__tablename__: "the audit log is append-only",
}


def upgrade() -> None:
    Base.metadata.create_all(op.get_bind())
    op.bulk_insert(_table(AuditHead), [{"id": 1, "seq": 0, "entry_hash": GENESIS_HASH}])
    op.bulk_insert(_table(BooksHead), [{"id": 1, "invoices_issued": 0}])
    on_postgres = op.get_bind().dialect.name == "postgresql"
    for name, refusal in _APPEND_ONLY.items():
        (_refuse_on_postgres if on_postgres else _refuse_on_sqlite)(Base.metadata.tables[name], refusal)


def _table(row: type[Base]) -> Table:
    return Base.metadata.tables[row.__tablename__]


def _refuse_on_postgres(table: Table, refusal: str) -> None:
    """Refuse every change; an ON CONFLICT DO UPDATE is an update to a trigger."""
    op.execute(
        f"CREATE FUNCTION refuse_change_of_{table.name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{refusal}'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table.name}_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table.name} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION refuse_change_of_{table.name}()"
    )


def _refuse_on_sqlite(table: Table, refusal: str) -> None:
    """Refuse every change, INSERT OR REPLACE too, which fires no trigger of DELETE.

    It replaces a row for any unique value that the row has: each of them, and the hidden rowid.
    """
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table.name}_refuses_{change.lower()} BEFORE {change} ON {table.name} "
            f"BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
        )
    refusals = " ".join(
        f"SELECT RAISE(ABORT, '{refusal}: there is a row of this {key[-1]}') "  # noqa: S608
        f"WHERE EXISTS (SELECT 1 FROM {table.name} WHERE {_same(key)});"
        for key in _unique_keys(table)
    )
    op.execute(
        f"CREATE TRIGGER {table.name}_refuses_replacement BEFORE INSERT ON {table.name} BEGIN {refusals} END"
    )


def _unique_keys(table: Table) -> list[list[str]]:
    unique: list[UniqueConstraint | Index | PrimaryKeyConstraint] = [table.primary_key]
    unique += [each for each in table.constraints if isinstance(each, UniqueConstraint)]
    unique += [each for each in table.indexes if each.unique]
    return [["rowid"], *sorted(list(each.columns.keys()) for each in unique)]


def _same(key: list[str]) -> str:
    return " AND ".join(f"{column} = NEW.{column}" for column in key)
