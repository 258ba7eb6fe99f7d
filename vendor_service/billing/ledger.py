"""The ledger: one chain of entries an account, appended to and never changed."""

import hashlib
import json

from sqlalchemy.orm import Session

from vendor_service.database.tables import Account, Hold, LedgerEntry

GENESIS_HASH = "0" * 64


def charge(session: Session, account: Account, hold: Hold, now: int) -> LedgerEntry:
    """Append what an answered request costs. The account's row must be locked by this transaction."""
    entry = LedgerEntry(
        kind="charge",
        amount_micros=-hold.cost_micros,
        images=hold.images,
        texts=hold.texts,
        image_micros=hold.image_micros,
        text_micros=hold.text_micros,
        model=hold.model,
        model_fingerprint=hold.model_fingerprint,
        key_id=hold.key_id,
        hold_id=hold.id,
        created_at=now,
    )
    return _append(session, account, entry)


def top_up(session: Session, account: Account, amount_micros: int, now: int) -> LedgerEntry:
    """Append money that a prepaid account paid in. The account's row must be locked by this transaction."""
    entry = LedgerEntry(
        kind="top_up",
        amount_micros=amount_micros,
        images=0,
        texts=0,
        image_micros=0,
        text_micros=0,
        created_at=now,
    )
    return _append(session, account, entry)


def entry_hash(entry: LedgerEntry) -> str:
    """SHA-256 (hex) of every other column of the entry, `previous_hash` among them, as canonical JSON."""
    columns = (column.key for column in LedgerEntry.__table__.columns if column.key != "entry_hash")
    content = {key: getattr(entry, key) for key in columns}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _append(session: Session, account: Account, entry: LedgerEntry) -> LedgerEntry:
    entry.account_id = account.id
    entry.seq = account.ledger_seq + 1
    entry.previous_hash = account.ledger_hash
    entry.entry_hash = entry_hash(entry)
    session.add(entry)
    account.ledger_seq = entry.seq
    account.ledger_hash = entry.entry_hash
    if account.credit_micros is not None:
        account.credit_micros += entry.amount_micros
    return entry
