"""All tables, a module for each room of the vendor, and all of them here.

Times are microseconds since the epoch in UTC, money is millionths of the currency unit.
"""

from vendor_service.database.tables.accounts import (
    Account,
    ApiKey,
    Limited,
    Project,
    Rated,
    limited_by,
    period_start,
    roll_periods,
)
from vendor_service.database.tables.audit import AuditEntry, AuditHead
from vendor_service.database.tables.base import GENESIS_HASH, STANDARD_PLAN, Base, Secret, row_hash
from vendor_service.database.tables.batches import BatchChunk, BatchJob, FilePiece, StoredFile
from vendor_service.database.tables.console import ConsoleSession, Invitation
from vendor_service.database.tables.extraction import Coverage, SketchRow
from vendor_service.database.tables.money import (
    BULK,
    BooksHead,
    FinalInvoice,
    Hold,
    IssuedCreditNote,
    LedgerEntry,
    LedgerTotal,
    Price,
    Refusals,
    SigningKeyRow,
)
from vendor_service.database.tables.operators import AnsweredRequest, OperatorToken
from vendor_service.database.tables.webhooks import (
    ModelNotice,
    WebhookAttempt,
    WebhookDelivery,
    WebhookEndpoint,
    WebhookEvent,
)

__all__ = [
    "BULK",
    "GENESIS_HASH",
    "STANDARD_PLAN",
    "Account",
    "AnsweredRequest",
    "ApiKey",
    "AuditEntry",
    "AuditHead",
    "Base",
    "BatchChunk",
    "BatchJob",
    "BooksHead",
    "ConsoleSession",
    "Coverage",
    "FilePiece",
    "FinalInvoice",
    "Hold",
    "Invitation",
    "IssuedCreditNote",
    "LedgerEntry",
    "LedgerTotal",
    "Limited",
    "ModelNotice",
    "OperatorToken",
    "Price",
    "Project",
    "Rated",
    "Refusals",
    "Secret",
    "SigningKeyRow",
    "SketchRow",
    "StoredFile",
    "WebhookAttempt",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
    "limited_by",
    "period_start",
    "roll_periods",
    "row_hash",
]
