"""The audit log."""

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from vendor_service.database.tables.base import Base, Chained


class AuditEntry(Chained, Base):
    """One act that changed the books, never edited: triggers refuse what they refuse for the ledger.

    `actor` is who did it (`os:NAME`, `operator:ID (NAME)`, `key:ID` or `invitation:ID`), `subject` the name
    or the id of what it was done to; `before` and `after` are JSON of what it changed, and have no secret.
    `entry_hash` covers all the other columns.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("ix_audit_entries_actor", "actor", "seq"),
        Index("ix_audit_entries_subject", "subject", "seq"),
    )

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[int]
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str]
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)


class AuditHead(Base):
    """The one row that says where the audit log ends; who appends to the log locks it."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    entry_hash: Mapped[str] = mapped_column(String(64))
