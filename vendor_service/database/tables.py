"""All tables. Times are microseconds since the epoch in UTC, money is millionths of the currency unit."""

import hmac

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

STANDARD_PLAN = "standard"


class Base(DeclarativeBase):
    """What every table shares: constraints have names, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: BigInteger, str: String(255)}  # noqa: RUF012 - SQLAlchemy reads it as it is


class Limited:
    """Limits, and counters that are always the sums of the ledger's charges and of the open holds.

    `queries_used` and `spent_micros` count since `period_started_at`, the latter without what was given back
    of the charges; `NULL` is no limit. An account has its own, and each of its projects and keys may have
    narrower ones.
    """

    quota: Mapped[int | None]
    spend_limit_micros: Mapped[int | None]
    period_started_at: Mapped[int] = mapped_column(default=0, server_default="0")
    queries_used: Mapped[int] = mapped_column(default=0, server_default="0")
    spent_micros: Mapped[int] = mapped_column(default=0, server_default="0")
    queries_held: Mapped[int] = mapped_column(default=0, server_default="0")
    held_micros: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def quota_left(self) -> int | None:
        """Queries that may still be asked for in this period, or `None` where there is no quota."""
        return None if self.quota is None else max(0, self.quota - self.queries_used - self.queries_held)

    @property
    def spend_limit_left(self) -> int | None:
        """Micro-units that may still be spent in this period, or `None` where there is no limit."""
        limit = self.spend_limit_micros
        return None if limit is None else max(0, limit - self.spent_micros - self.held_micros)


class Rated:
    """A rate, `NULL` for none, and its token bucket, in millionths of a query."""

    queries_per_second: Mapped[int | None]
    rate_tokens: Mapped[int] = mapped_column(default=0)
    rate_refilled_at: Mapped[int] = mapped_column(default=0)


class Secret:
    """A secret of which only a hash is kept; after a rotation the former one is good until `former_until`."""

    secret_hash: Mapped[str] = mapped_column(String(64))
    former_hash: Mapped[str | None] = mapped_column(String(64))
    former_until: Mapped[int | None]

    def is_secret(self, hashed: str, now: int) -> bool:
        """Whether this is the hash of the secret, or of the former one while that is good."""
        good = hmac.compare_digest(self.secret_hash, hashed)
        return good or (
            hmac.compare_digest(self.former_hash or "", hashed) and now < (self.former_until or 0)
        )

    def replace_secret(self, hashed: str, former_until: int) -> None:
        """Take another secret; an earlier former one is good no longer."""
        self.former_hash, self.former_until = self.secret_hash, former_until
        self.secret_hash = hashed


class Account(Limited, Rated, Base):
    """A customer: what is agreed, and where it stands.

    `credit_micros` is what a prepaid account has left, `NULL` for one that is invoiced, and
    `credit_base_micros` what it had just after its last top-up; no ledger entry to come is dated before
    `ledger_at`. `buckets_covered` is how many bits the rows of its
    coverage have, and `coverage_limit` how many they may have, ever.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        CheckConstraint("queries_held >= 0 AND held_micros >= 0", name="held_is_not_negative"),
        CheckConstraint("queries_used >= 0 AND spent_micros >= 0", name="used_is_not_negative"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    status: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[int]

    plan: Mapped[str] = mapped_column(String(64), server_default=STANDARD_PLAN)
    quota_period: Mapped[str] = mapped_column(String(8))
    credit_micros: Mapped[int | None]
    credit_base_micros: Mapped[int | None]
    coverage_limit: Mapped[int | None]

    ledger_seq: Mapped[int] = mapped_column(default=0)
    ledger_hash: Mapped[str] = mapped_column(String(64))
    ledger_at: Mapped[int] = mapped_column(default=0, server_default="0")
    buckets_covered: Mapped[int] = mapped_column(default=0, server_default="0")

    @property
    def coverage_left(self) -> int | None:
        """Queries that may still be asked if each opens a bucket, or `None` where coverage has no limit."""
        limit = self.coverage_limit
        return None if limit is None else max(0, limit - self.buckets_covered - self.queries_held)


class Project(Limited, Rated, Base):
    """A part of an account, with limits of its own inside the account's.

    All changes of it are made under the lock of its account. What belongs to no project belongs to the
    account's default one, which has no row.
    """

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("account_id", "name"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    archived_at: Mapped[int | None]


class ApiKey(Limited, Rated, Secret, Base):
    """A key of an account: the public half names the row, of the secret half only a hash is kept.

    A rotated key keeps its row, and so its limits; the former secret is good until `former_until`.
    `scopes` are separated by spaces. It belongs to its project, or to the default one, for good.
    `requests_held` are its open holds but for those of bulk jobs: as many as its `concurrency` there may be.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), index=True)
    label: Mapped[str]
    scopes: Mapped[str] = mapped_column(server_default="embed usage:read")
    created_at: Mapped[int]
    expires_at: Mapped[int | None]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id"))
    concurrency: Mapped[int | None]
    requests_held: Mapped[int] = mapped_column(default=0, server_default="0")
    rate_tokens: Mapped[int] = mapped_column(default=0, server_default="0")
    rate_refilled_at: Mapped[int] = mapped_column(default=0, server_default="0")

    # Read with the key: a statement more, and that only where a key has a project.
    project: Mapped[Project | None] = relationship(lazy="selectin")


def limited_by(account: Account, key: ApiKey) -> tuple[Account | Project | ApiKey, ...]:
    """All that limits what a key may ask, the widest first."""
    return (account, key) if key.project is None else (account, key.project, key)


# In the place of a process: the hold is a bulk job's, which any process may work on.
BULK = "bulk"


class Hold(Base):
    """What a request in flight may come to cost; settled into the ledger or voided, never both.

    Its id is the request's id. A settled hold is also the memory of its idempotency key: how many `replays`
    it was good for, and whether its charge was wholly given back. `server` is the process that answers the
    request and, while it lives, moves `expires_at` on; `bulk` stands for a bulk job. The hold of one gets
    smaller as parts of the job are done, each of which is a settled hold of its own.
    """

    __tablename__ = "holds"
    __table_args__ = (
        # A voided request leaves its idempotency key free for the retry.
        Index(
            "uq_holds_live_idempotency_key",
            "account_id",
            "idempotency_key",
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
    project_id: Mapped[str | None] = mapped_column(String(32))
    server: Mapped[str | None] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(8))
    model: Mapped[str]
    model_fingerprint: Mapped[str]
    images: Mapped[int]
    texts: Mapped[int]
    image_micros: Mapped[int]
    text_micros: Mapped[int]
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


class LedgerEntry(Base):
    """One movement of money, never edited: triggers refuse UPDATE and DELETE, and INSERT OR REPLACE.

    `amount_micros` is signed: a charge is negative, a top-up or a payment positive. `image_micros` and
    `text_micros` are the prices that applied, so an old entry keeps them. `corrects_seq` is the charge of
    which a refund gives back a part or all. `reference` names what was paid or given back, once an account.
    An entry with a `redates_seq` says that the entries from that one up to itself belong to its own date.
    `entry_hash` covers all the other columns.
    """

    __tablename__ = "ledger_entries"
    __table_args__ = (
        UniqueConstraint("hold_id"),
        Index("ix_ledger_entries_created_at", "account_id", "created_at"),
        _index_of_few("ix_ledger_entries_corrects_seq", "corrects_seq", unique=False),
        _index_of_few("uq_ledger_entries_reference", "reference", unique=True),
        _index_of_few("ix_ledger_entries_redates_seq", "redates_seq", unique=False),
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    amount_micros: Mapped[int]
    images: Mapped[int]
    texts: Mapped[int]
    image_micros: Mapped[int]
    text_micros: Mapped[int]
    model: Mapped[str | None]
    model_fingerprint: Mapped[str | None]
    key_id: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    project_id: Mapped[str | None] = mapped_column(String(32))
    hold_id: Mapped[str | None] = mapped_column(ForeignKey("holds.id"))
    corrects_seq: Mapped[int | None]
    reason: Mapped[str | None]
    reference: Mapped[str | None]
    redates_seq: Mapped[int | None]
    created_at: Mapped[int]
    previous_hash: Mapped[str] = mapped_column(String(64))
    entry_hash: Mapped[str] = mapped_column(String(64))


class LedgerTotal(Base):
    """Sums of the ledger entries of an account that are alike, an hour; always what the entries add up to.

    `hour` counts the hours since the epoch, of the date that the entries belong to. What an entry has not is
    an empty string here. `image_requests` and `text_requests` are the entries with images, and with texts.
    """

    __tablename__ = "ledger_totals"
    __table_args__ = (Index("ix_ledger_totals_hour", "hour"),)

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    model: Mapped[str] = mapped_column(primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    image_micros: Mapped[int] = mapped_column(primary_key=True)
    text_micros: Mapped[int] = mapped_column(primary_key=True)
    entries: Mapped[int]
    image_requests: Mapped[int]
    text_requests: Mapped[int]
    images: Mapped[int]
    texts: Mapped[int]
    amount_micros: Mapped[int]
    first_seq: Mapped[int]
    last_seq: Mapped[int]


class FinalInvoice(Base):
    """The invoice of a month that was over, as it was issued; never edited, as the ledger's entries.

    `content` is the invoice as JSON, and `ledger_seq` the account's last entry when it was summed up. Over
    all accounts the `number`s go from 1 on without a gap; invoices of earlier versions have none.
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


class BooksHead(Base):
    """The one row of what holds for all accounts; who changes it locks it, after any account.

    `currency` is the unit of all money (ISO 4217), `NULL` where nobody has named it; `invoices_issued` is the
    number of the last final invoice.
    """

    __tablename__ = "books_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    currency: Mapped[str | None] = mapped_column(String(3))
    invoices_issued: Mapped[int]


class Price(Base):
    """What one query of a kind costs on a plan from a moment on, until a later row of the same three.

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

    One that was withdrawn is published no more. Rows are never deleted.
    """

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(43), primary_key=True)
    x: Mapped[str] = mapped_column(String(43))
    created_at: Mapped[int]
    withdrawn_at: Mapped[int | None]


class AuditEntry(Base):
    """One act that changed the books, never edited: triggers refuse what they refuse for the ledger.

    `actor` is who did it (`os:NAME`, `operator:ID (NAME)`, `key:ID` or `invitation:ID`), `subject` the name
    or the id of what it was done to; `before` and `after` are JSON of what it changed, and have no secret.
    `entry_hash` covers all the other columns.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (Index("ix_audit_entries_subject", "subject", "seq"),)

    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    created_at: Mapped[int]
    actor: Mapped[str]
    action: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str]
    before: Mapped[str | None] = mapped_column(Text)
    after: Mapped[str | None] = mapped_column(Text)
    previous_hash: Mapped[str] = mapped_column(String(64))
    entry_hash: Mapped[str] = mapped_column(String(64))


class AuditHead(Base):
    """The one row that says where the audit log ends; who appends to the log locks it."""

    __tablename__ = "audit_head"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    seq: Mapped[int]
    entry_hash: Mapped[str] = mapped_column(String(64))


class OperatorToken(Secret, Base):
    """A token by which an operator asks `/admin`; `scopes` are separated by spaces."""

    __tablename__ = "operator_tokens"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    name: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str]
    created_at: Mapped[int]
    revoked_at: Mapped[int | None]
    last_used_at: Mapped[int | None]


class OperatorRequest(Base):
    """What an operator's request that moves money was answered, under its idempotency key; never deleted."""

    __tablename__ = "operator_requests"

    # No foreign key: to check it would lock the token's row after the end of the audit log.
    token_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str] = mapped_column(String(64))
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int]


class WebhookEndpoint(Base):
    """A receiver of events: of all accounts, or of one; of all kinds (`*`) or of those named.

    It has its secrets in clear, for each delivery is signed by them; the former one is used as well until
    `former_until`. Only one that an operator added may be on a private network.
    """

    __tablename__ = "webhook_endpoints"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str] = mapped_column(String(2048))
    account_id: Mapped[str | None] = mapped_column(String(32))
    added_by: Mapped[str] = mapped_column(String(16), default="operator", server_default="operator")
    kinds: Mapped[str]
    secret: Mapped[str] = mapped_column(String(64))
    former_secret: Mapped[str | None] = mapped_column(String(64))
    former_until: Mapped[int | None]
    created_at: Mapped[int]
    disabled_at: Mapped[int | None]


class WebhookEvent(Base):
    """Something that happened, with the body that every receiver is sent of it."""

    __tablename__ = "webhook_events"
    __table_args__ = (Index("ix_webhook_events_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(64))
    account_id: Mapped[str | None] = mapped_column(String(32))
    content: Mapped[str] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(index=True)


class WebhookDelivery(Base):
    """An event that a receiver is to be sent: `pending` until it is `delivered` or has `failed` for good.

    A process that sends it holds the `lease` until `leased_until`.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(
            "ix_webhook_deliveries_pending",
            "next_at",
            sqlite_where=text("state = 'pending'"),
            postgresql_where=text("state = 'pending'"),
        ),
    )

    event_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    tries_left: Mapped[int]
    next_at: Mapped[int]
    lease: Mapped[str | None] = mapped_column(String(32))
    leased_until: Mapped[int]


class WebhookAttempt(Base):
    """One try to deliver an event: what the receiver answered, or why there was no answer."""

    __tablename__ = "webhook_attempts"

    event_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    endpoint_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[int]
    milliseconds: Mapped[int]
    status: Mapped[int | None]
    error: Mapped[str | None]


class ModelNotice(Base):
    """What receivers of events were told of the end of a model: the dates as they stood then."""

    __tablename__ = "model_notices"

    model: Mapped[str] = mapped_column(primary_key=True)
    deprecated_at: Mapped[int]
    sunset_at: Mapped[int | None]


class Coverage(Base):
    """The buckets of a model's embedding space that the answers to an account lie in.

    `buckets` is a bitmap: bit `n % 8` of byte `n // 8` stands for bucket n. It ends with
    the last byte that is not zero.
    """

    __tablename__ = "coverage"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    buckets: Mapped[bytes] = mapped_column(LargeBinary)


class SketchRow(Base):
    """What is known of all inputs of an account to a model together, of a fixed size.

    `inputs` are the smallest keyed hashes of the inputs, `moment` is the second moment of a projection of the
    answers (see `vendor_service/extraction/sketch.py`). Hashes by different keys cannot be compared; `key_id`
    tells the keys apart, and is empty where there was none.
    """

    __tablename__ = "sketches"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    model_fingerprint: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    inputs: Mapped[bytes] = mapped_column(LargeBinary)
    moment: Mapped[bytes] = mapped_column(LargeBinary)
    updated_at: Mapped[int]


class StoredFile(Base):
    """A file of a customer: one that was sent in for bulk jobs, or what a job brought.

    It is `coming`, `ready`, or `leaving` while its content is deleted. `digest` is the SHA-256 of what was
    sent in, `endpoint` and `model` are those of its lines, which ask `images` and `texts`. `fault_bytes` is
    what its pieces keep of lines that cannot be asked. What a job brought is in the files of its chunks.
    """

    __tablename__ = "files"
    __table_args__ = (Index("ix_files_account_id", "account_id", "created_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
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
    images: Mapped[int] = mapped_column(default=0)
    texts: Mapped[int] = mapped_column(default=0)
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
    images: Mapped[int]
    texts: Mapped[int]
    faults: Mapped[str | None] = mapped_column(Text)


class BatchJob(Base):
    """A bulk job: the lines of a file, asked of one model when nobody else asks it.

    It is `in_progress`, or ended: `completed`, `cancelled` or `expired`. Its hold has what its lines that are
    not done may come to cost. `claimed_at` is when a process last took a chunk of it. `labels` is the
    customer's own JSON.
    """

    __tablename__ = "batches"
    __table_args__ = (
        UniqueConstraint("account_id", "idempotency_key"),
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
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    hold_id: Mapped[str] = mapped_column(ForeignKey("holds.id"))
    input_file_id: Mapped[str] = mapped_column(String(40))
    output_file_id: Mapped[str | None] = mapped_column(String(40))
    error_file_id: Mapped[str | None] = mapped_column(String(40))
    endpoint: Mapped[str] = mapped_column(String(32))
    model: Mapped[str]
    model_fingerprint: Mapped[str]
    image_micros: Mapped[int]
    text_micros: Mapped[int]
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


class ConsoleSession(Base):
    """Somebody who is signed in to the console, until `expires_at`; whoever signs out has no row any more.

    The id is a hash of what is in the browser's cookie. `kind` is `customer` or `operator`. A customer's is
    of an account, and was begun by a key or by an invitation, an operator's by a token; `secret_hash` is that
    of the key's or the token's secret then, so a secret that is good no longer ends what was begun by it.
    """

    __tablename__ = "console_sessions"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    account_id: Mapped[str | None] = mapped_column(String(32), index=True)
    key_id: Mapped[str | None] = mapped_column(String(32))
    invitation_id: Mapped[str | None] = mapped_column(String(32))
    token_id: Mapped[str | None] = mapped_column(String(32))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    last_used_at: Mapped[int]
    expires_at: Mapped[int] = mapped_column(index=True)


class Invitation(Base):
    """A link by which somebody may sign in to the console of an account, once, until `expires_at`."""

    __tablename__ = "invitations"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[int]
    expires_at: Mapped[int]
    used_at: Mapped[int | None]


class Refusals(Base):
    """How many requests of an account were refused in an hour (counted since the epoch), by error code."""

    __tablename__ = "refusals"

    account_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(64), primary_key=True)
    requests: Mapped[int]
