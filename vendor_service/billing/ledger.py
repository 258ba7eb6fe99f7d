"""The ledger: one chain of entries an account, appended to and never changed."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.billing import Entry, EntryKind
from vendor_service.clock import to_datetime
from vendor_service.database.tables import Account, ApiKey, Hold, LedgerEntry
from vendor_service.errors import OperatorError, UsageError

GENESIS_HASH = "0" * 64
# Larger numbers than this cannot be told apart in JavaScript and other JSON readers.
MAX_NUMBER = 2**53 - 1
_PAGE = 500


def charge(session: Session, account: Account, hold: Hold, now: int) -> LedgerEntry:
    """Append what an answered request costs. Here as below, this transaction must have locked the account."""
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
    )
    return _append(session, account, entry, now)


def top_up(session: Session, account: Account, amount_micros: int, now: int) -> LedgerEntry:
    """Append money that a prepaid account paid in.

    Raises:
        OperatorError: the account is not prepaid.
        UsageError: the amount is not positive, or too large.
    """
    if account.credit_micros is None:
        raise OperatorError(f"{account.name} is invoiced, not prepaid; record a payment with: vendor adjust")
    if not 0 < amount_micros <= MAX_NUMBER - max(0, account.credit_micros):
        raise UsageError("a top-up is a positive number of micro-units, and credit has fewer than 16 digits")
    return _append(session, account, _without_queries("top_up", amount_micros), now)


def refund(session: Session, account: Account, seq: int, now: int) -> LedgerEntry:
    """Append what gives a charge back, whole and once. Its queries stay used, and it is replayed no more.

    What was spent of the present period's spend limits is given back with it, if it was charged in it.

    Raises:
        OperatorError: there is no such charge, or it was given back already.
    """
    charged = session.get(LedgerEntry, (account.id, seq))
    if charged is None or charged.kind != "charge":
        raise OperatorError(f"{account.name} has no charge {seq}; see: vendor ledger export {account.name}")
    same = (LedgerEntry.account_id == account.id, LedgerEntry.corrects_seq == seq)
    before = session.scalar(select(LedgerEntry.seq).where(*same))
    if before is not None:
        raise OperatorError(f"charge {seq} of {account.name} was refunded already, by entry {before}")
    entry = _without_queries("refund", -charged.amount_micros)
    entry.corrects_seq = seq
    appended = _append(session, account, entry, now)
    for each in (account, session.get_one(ApiKey, charged.key_id)):
        if charged.created_at >= each.period_started_at:
            each.spent_micros += charged.amount_micros
    session.get_one(Hold, charged.hold_id).refunded_at = appended.created_at
    return appended


def adjust(session: Session, account: Account, amount_micros: int, reason: str, now: int) -> LedgerEntry:
    """Append a correction for a reason; a positive amount is in the customer's favour.

    Raises:
        UsageError: the amount is zero or too large, the reason is empty or longer than 255 characters,
            or a prepaid account's free credit would not cover it.
    """
    if amount_micros == 0 or abs(amount_micros) > MAX_NUMBER:
        raise UsageError("an adjustment is a number of micro-units, not zero and below 16 digits")
    if not reason.strip() or len(reason) > 255:
        raise UsageError("give the reason of an adjustment, in up to 255 characters")
    credit = account.credit_micros
    if credit is not None and not account.held_micros <= credit + amount_micros <= MAX_NUMBER:
        raise UsageError(f"{account.name} has {credit - account.held_micros} micro-units of free credit")
    entry = _without_queries("adjustment", amount_micros)
    entry.reason = reason
    return _append(session, account, entry, now)


def page(session: Session, account_id: str, after: int, limit: int) -> Sequence[LedgerEntry]:
    """Up to `limit` of an account's entries behind `after`, oldest first."""
    mine = (LedgerEntry.account_id == account_id, LedgerEntry.seq > after)
    return session.scalars(select(LedgerEntry).where(*mine).order_by(LedgerEntry.seq).limit(limit)).all()


def entries(session: Session, account_id: str) -> Iterator[LedgerEntry]:
    """All of an account's entries, oldest first, fetched as they are asked for."""
    after = 0
    while found := page(session, account_id, after, _PAGE):
        yield from found
        after = found[-1].seq


def public(entry: LedgerEntry) -> Entry:
    """An entry as its customer and its operator may see it."""
    return Entry(
        seq=entry.seq,
        kind=cast(EntryKind, entry.kind),
        amount_micros=entry.amount_micros,
        images=entry.images,
        texts=entry.texts,
        image_micros=entry.image_micros,
        text_micros=entry.text_micros,
        model=entry.model,
        model_fingerprint=entry.model_fingerprint,
        key_id=entry.key_id,
        request_id=entry.hold_id,
        corrects_seq=entry.corrects_seq,
        reason=entry.reason,
        created_at=to_datetime(entry.created_at),
        previous_hash=entry.previous_hash,
        entry_hash=entry.entry_hash,
    )


def entry_hash(entry: LedgerEntry) -> str:
    """SHA-256 (hex) of every other column of the entry, `previous_hash` among them, as canonical JSON.

    What is NULL is left out: a column that a later version adds leaves the hashes of old entries as they are.
    """
    columns = (column.key for column in LedgerEntry.__table__.columns if column.key != "entry_hash")
    content = {key: value for key in columns if (value := getattr(entry, key)) is not None}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _without_queries(kind: str, amount_micros: int) -> LedgerEntry:
    return LedgerEntry(
        kind=kind, amount_micros=amount_micros, images=0, texts=0, image_micros=0, text_micros=0
    )


def _append(session: Session, account: Account, entry: LedgerEntry, now: int) -> LedgerEntry:
    entry.account_id = account.id
    entry.seq = account.ledger_seq + 1
    # A clock that steps back dates nothing before what is there, nor into a month that was invoiced.
    entry.created_at = max(now, account.ledger_at, account.period_started_at)
    entry.previous_hash = account.ledger_hash
    entry.entry_hash = entry_hash(entry)
    session.add(entry)
    account.ledger_seq = entry.seq
    account.ledger_hash = entry.entry_hash
    account.ledger_at = entry.created_at
    if account.credit_micros is not None:
        account.credit_micros += entry.amount_micros
    return entry
