"""Files, and the bulk jobs that work on them."""

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.kinds import NOTHING, Counts, UnitPrices
from vendor_service.database.tables.base import Base, ByKind


class StoredFile(Base):
    """A file of a customer: one that was sent in for bulk jobs, or what a job brought.

    It is `coming`, `ready`, or `leaving` while its content is deleted. `digest` is the SHA-256 of what was
    sent in, `endpoint` and `model` are those of its lines, and `counts` what these ask. `fault_bytes` is
    what its pieces keep of lines that cannot be asked. What a job brought is in the files of its chunks.
    `project_id` is empty for the default project.
    """

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    project_id: Mapped[str] = mapped_column(String(32))
    purpose: Mapped[str] = mapped_column(String(16))
    name: Mapped[str]
    state: Mapped[str] = mapped_column(String(8))
    created_at: Mapped[int]
    expires_at: Mapped[int] = mapped_column(index=True)
    bytes: Mapped[int]
    digest: Mapped[str | None] = mapped_column(String(64))
    endpoint: Mapped[str | None] = mapped_column(String(32))
    model: Mapped[str | None]
    lines: Mapped[int] = mapped_column(default=0)
    counts: Mapped[Counts] = mapped_column(ByKind, default=NOTHING)
    fault_bytes: Mapped[int] = mapped_column(default=0, server_default="0")
    batch_id: Mapped[str | None] = mapped_column(String(40))


class FilePiece(Base):
    """A piece of a file that was sent in: some whole lines, small enough to be worked on at once.

    `faults` is JSON: why lines cannot be asked, by their place in the piece.
    """

    __tablename__ = "file_pieces"

    file_id: Mapped[str] = mapped_column(ForeignKey("files.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    first_byte: Mapped[int]
    bytes: Mapped[int]
    first_line: Mapped[int]
    lines: Mapped[int]
    counts: Mapped[Counts] = mapped_column(ByKind)
    faults: Mapped[str | None] = mapped_column(Text)


class BatchJob(Base):
    """A bulk job: the lines of a file, asked of one model when nobody else asks it.

    It is `in_progress`, or ended: `completed`, `cancelled` or `expired`. It was begun by the secret of
    `secret_hash`, and ends with what that may ask. Its hold has what its lines that are not done may come to
    cost. `claimed_at` is when a process last took a chunk of it. `labels` is the customer's own JSON.
    `project_id` is that of its key, empty for the default project.
    """

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("account_id", "idempotency_key", "project_id"),
        Index("ix_batches_account_id", "account_id", "created_at"),
        Index(
            "ix_batches_in_progress",
            "expires_at",
            sqlite_where=text("state = 'in_progress'"),
            postgresql_where=text("state = 'in_progress'"),
        ),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    project_id: Mapped[str] = mapped_column(String(32))
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    secret_hash: Mapped[str | None] = mapped_column(String(64))
    hold_id: Mapped[str] = mapped_column(ForeignKey("holds.id"))
    input_file_id: Mapped[str] = mapped_column(String(40))
    output_file_id: Mapped[str | None] = mapped_column(String(40))
    error_file_id: Mapped[str | None] = mapped_column(String(40))
    endpoint: Mapped[str] = mapped_column(String(32))
    model: Mapped[str]
    model_fingerprint: Mapped[str]
    prices: Mapped[UnitPrices] = mapped_column(ByKind)
    state: Mapped[str] = mapped_column(String(16))
    labels: Mapped[str | None] = mapped_column(Text)
    idempotency_key: Mapped[str | None]
    body_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    expires_at: Mapped[int]
    ended_at: Mapped[int | None]
    claimed_at: Mapped[int] = mapped_column(default=0)
    lines: Mapped[int]
    completed: Mapped[int] = mapped_column(default=0)
    failed: Mapped[int] = mapped_column(default=0)
    chunks_left: Mapped[int]
    cost_micros: Mapped[int] = mapped_column(default=0)


class BatchChunk(Base):
    """A piece of a bulk job's file and what became of it: `waiting`, or `done`. Who takes it makes its row.

    A process that works on it holds the `lease` until `leased_until`. `hold_id` is the hold by which it was
    charged, if anything of it was; `part` names its files in the store, of `output_bytes` and `error_bytes`.
    Its lines are noted here, for the file may be deleted before the job's receipts are asked for.
    """

    __tablename__ = "batch_chunks"
    __table_args__ = (
        Index(
            "ix_batch_chunks_waiting",
            "batch_id",
            "number",
            sqlite_where=text("state = 'waiting'"),
            postgresql_where=text("state = 'waiting'"),
        ),
    )

    batch_id: Mapped[str] = mapped_column(ForeignKey("batches.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(8))
    lease: Mapped[str | None] = mapped_column(String(32))
    leased_until: Mapped[int] = mapped_column(default=0)
    failures: Mapped[int] = mapped_column(default=0)
    hold_id: Mapped[str | None] = mapped_column(ForeignKey("holds.id"))
    part: Mapped[str | None] = mapped_column(String(80))
    output_bytes: Mapped[int] = mapped_column(default=0)
    error_bytes: Mapped[int] = mapped_column(default=0)
    request_hash: Mapped[str | None] = mapped_column(String(64))
    answer_hash: Mapped[str | None] = mapped_column(String(64))
    first_line: Mapped[int | None]
    lines: Mapped[int | None]
