"""Holds, the ledger and its sums, invoices, prices, keys that sign receipts, and requests refused."""

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, false, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.kinds import Counts, UnitPrices
from vendor_service.database.tables.base import STANDARD_PLAN, Base, ByKind, Chained

# In the place of a process: the hold is a bulk job's, which any process may work on.
BULK = "bulk"


class Hold(Base):
    """The most that a request in flight may cost; settled into the ledger or voided, never both.

    Its id is the request's id. A settled hold is also the memory of its idempotency key: how many `replays`
    it was good for, and whether its charge was wholly given back. `server` is the process that answers the
    request and, while it lives, moves `expires_at` on; `bulk` stands for a bulk job. The hold of one gets
    smaller as parts of the job are done, each of which is a settled hold of its own. `project_id` is that of
    its key, empty for the default project: each project has idempotency keys of its own.
    """

    __tablename__ = "holds"
    __table_args__ = (
        # A voided request leaves its idempotency key free for the retry.
        Index(
            "uq_holds_live_idempotency_key",
            "account_id",
            "idempotency_key",
            "project_id",
            unique=True,
            sqlite_where=text("state <> 'voided'"),
            postgresql_where=text("state <> 'voided'"),
        ),
        Index(
            "ix_holds_open_expiry",
            "expires_at",
            sqlite_where=text("state = 'open'"),
            postgresql_where=text("state = 'open'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    project_id: Mapped[str] = mapped_column(String(32))
    server: Mapped[str | None] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(8))
    model: Mapped[str]
    model_fingerprint: Mapped[str]
    counts: Mapped[Counts] = mapped_column(ByKind)
    prices: Mapped[UnitPrices] = mapped_column(ByKind)
    cost_micros: Mapped[int]
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    expires_at: Mapped[int]
    replays: Mapped[int] = mapped_column(default=0, server_default="0")
    refunded_at: Mapped[int | None]


def _index_of_few(name: str, column: str, *, unique: bool) -> Index:
    """An index, by account, of the few ledger entries that have a value there."""
    some = text(f"{column} IS NOT NULL")
    return Index(name, "account_id", column, unique=unique, sqlite_where=some, postgresql_where=some)


class LedgerEntry(Chained, Base):
    """One movement of money, never edited: triggers refuse UPDATE and DELETE, and INSERT OR REPLACE.

    `amount_micros` is signed: a charge is negative, a top-up or a payment positive. A charge keeps the
    `prices` that applied to its `counts`. `corrects_seq` is the charge of which a refund gives back a part or
    all, in the charge's project. `reference` names what was paid or given back, once an account. `batch`
    says that a bulk job was charged, at its own prices.
    `entry_hash` covers all the other columns.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("hold_id"),
        Index("ix_ledger_entries_created_at", "account_id", "created_at"),
        _index_of_few("ix_ledger_entries_corrects_seq", "corrects_seq", unique=False),
        _index_of_few("uq_ledger_entries_reference", "reference", unique=True),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    amount_micros: Mapped[int]
    counts: Mapped[Counts] = mapped_column(ByKind)
    prices: Mapped[UnitPrices] = mapped_column(ByKind)
    model: Mapped[str | None]
    model_fingerprint: Mapped[str | None]
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    project_id: Mapped[str | None] = mapped_column(String(32))
    hold_id: Mapped[str | None] = mapped_column(ForeignKey("holds.id"))
    corrects_seq: Mapped[int | None]
    reason: Mapped[str | None]
    reference: Mapped[str | None]
    batch: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[int]


class LedgerTotal(Base):
    """Sums of the ledger entries of an account that are alike, an hour; always what the entries add up to.

    `hour` counts the hours since the epoch, of the date that the entries belong to. A charge is counted in a
    row for each kind of what it sold (`sold`), at its price: `quantity` is how many of it, `requests` the
    charges that have some. `entries` counts each entry once, in one of its rows. What an entry has not is an
    empty string here, and so is `sold` for what sold nothing.
    """

    __tablename__ = "ledger_totals"
    __table_args__ = (Index("ix_ledger_totals_hour", "hour"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    sold: Mapped[str] = mapped_column(String(16), primary_key=True)
    unit_micros: Mapped[int] = mapped_column(primary_key=True)
    batch: Mapped[bool] = mapped_column(primary_key=True, server_default=false())
    entries: Mapped[int]
    requests: Mapped[int]
    quantity: Mapped[int]
    amount_micros: Mapped[int]
    first_seq: Mapped[int]
    last_seq: Mapped[int]


class FinalInvoice(Base):
    """The invoice of a month that was over, as it was issued; never edited, as the ledger's entries.

    `content` is the invoice as JSON, and `ledger_seq` the account's last entry when it was summed up. Over
    all accounts the `number`s go from 1 on without a gap.
    """

    __tablename__ = "final_invoices"
    __table_args__ = (
        Index(
            "uq_final_invoices_number",
            "number",
            unique=True,
            sqlite_where=text("number IS NOT NULL"),
            postgresql_where=text("number IS NOT NULL"),
        ),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    month: Mapped[str] = mapped_column(String(7), primary_key=True)
    ledger_seq: Mapped[int] = mapped_column(primary_key=True)
    issued_at: Mapped[int]
    number: Mapped[int | None]
    content: Mapped[str] = mapped_column(Text)


class IssuedCreditNote(Base):
    """A credit note as it was issued, for the refund `seq` of an account; never edited either.

    `month` is that of the invoice which has the charge. `content` is the note as JSON. Over all accounts the
    `number`s go from 1 on without a gap.
    """

    __tablename__ = "credit_notes"
    __table_args__ = (UniqueConstraint("account_id", "seq"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    seq: Mapped[int]
    month: Mapped[str] = mapped_column(String(7))
    issued_at: Mapped[int]
    content: Mapped[str] = mapped_column(Text)


class BooksHead(Base):
    """The one row of what holds for all accounts; who changes it locks it, after any account.

    `currency` is the unit of all money (ISO 4217), `NULL` where nobody has named it; `invoices_issued` is the
    number of the last final invoice, `credit_notes_issued` that of the last credit note. `seller` is that of
    invoices to come, as JSON.
    """

    __tablename__ = "books_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    currency: Mapped[str | None] = mapped_column(String(3))
    invoices_issued: Mapped[int]
    credit_notes_issued: Mapped[int] = mapped_column(server_default="0")
    seller: Mapped[str | None] = mapped_column(Text)


class Price(Base):
    """The price of one query of a kind on a plan, from a moment on until a later row of the same three.

    Of the kind `batch-percent` it is what bulk jobs pay of the other two, in percent.
    """

    __tablename__ = "prices"

    plan: Mapped[str] = mapped_column(String(64), primary_key=True, server_default=STANDARD_PLAN)
    model: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    effective_at: Mapped[int] = mapped_column(primary_key=True)
    micros: Mapped[int]


class SigningKeyRow(Base):
    """The public half of a key that signs receipts, `x` as its JWK has it; the private half is a file.

    One that was replaced is retired: what it signed stays good. One that was withdrawn is disowned. Rows are
    never deleted, and the signed key set names all of them.
    """

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(43), primary_key=True)
    x: Mapped[str] = mapped_column(String(43))
    created_at: Mapped[int]
    retired_at: Mapped[int | None]
    withdrawn_at: Mapped[int | None]


class Refusals(Base):
    """How many requests of a project were refused in an hour (counted since the epoch), by error code."""

    __tablename__ = "refusals"

    account_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    project_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    requests: Mapped[int]
