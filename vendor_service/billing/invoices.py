"""Invoices: a month of the ledger, summed up; once the month is over, the same whenever it is asked for."""

from datetime import UTC, datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.billing import Invoice, InvoiceLine
from shared.embeddings import Kind
from vendor_service.clock import from_datetime, next_month_start
from vendor_service.database.tables import Account, LedgerEntry
from vendor_service.errors import UsageError


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a UTC month written as YYYY-MM, and that of the next one.

    Raises:
        UsageError: it is no month.
    """
    try:
        begin = from_datetime(datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC))
        return begin, next_month_start(begin)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{month!r} is no month; write it as 2026-11") from error


def issue(session: Session, account: Account, month: str, now: int) -> Invoice:
    """The invoice of a month; a month that is over is closed by it: no later entry will be dated into it.

    The account's row must be locked by this transaction.

    Raises:
        UsageError: `month` is not written as YYYY-MM.
    """
    begin, end = month_bounds(month)
    final = end <= now
    if final:
        account.ledger_at = max(account.ledger_at, end)
    in_month = (
        LedgerEntry.account_id == account.id,
        LedgerEntry.created_at >= begin,
        LedgerEntry.created_at < end,
    )
    sums = select(LedgerEntry.kind, func.sum(LedgerEntry.amount_micros)).where(*in_month)
    amounts = {kind: int(total) for kind, total in session.execute(sums.group_by(LedgerEntry.kind))}
    top_ups = amounts.pop("top_up", 0)
    ends = select(func.min(LedgerEntry.seq), func.max(LedgerEntry.seq)).where(*in_month)
    first, last = (
        None if seq is None else session.get_one(LedgerEntry, (account.id, seq))
        for seq in session.execute(ends).one()
    )
    invoice = Invoice(
        account=account.name,
        month=month,
        final=final,
        lines=[*_lines(session, account, begin, end, "image"), *_lines(session, account, begin, end, "text")],
        refunds_micros=amounts.get("refund", 0),
        adjustments_micros=amounts.get("adjustment", 0),
        total_micros=-sum(amounts.values()),
        top_ups_micros=top_ups,
        first_seq=None if first is None else first.seq,
        first_hash=None if first is None else first.entry_hash,
        last_seq=None if last is None else last.seq,
        last_hash=None if last is None else last.entry_hash,
    )
    # The lines are summed by price, the amounts by entry: they must come to the same.
    assert sum(line.amount_micros for line in invoice.lines) == -amounts.get("charge", 0)
    return invoice


def _lines(session: Session, account: Account, begin: int, end: int, kind: Kind) -> list[InvoiceLine]:
    number, unit = (
        (LedgerEntry.images, LedgerEntry.image_micros)
        if kind == "image"
        else (LedgerEntry.texts, LedgerEntry.text_micros)
    )
    grouped = (
        select(LedgerEntry.model, unit, func.sum(number))
        .where(LedgerEntry.account_id == account.id, LedgerEntry.kind == "charge", number > 0)
        .where(LedgerEntry.created_at >= begin, LedgerEntry.created_at < end)
        .group_by(LedgerEntry.model, unit)
        .order_by(LedgerEntry.model, unit)
    )
    return [
        InvoiceLine(
            model=str(model),
            kind=kind,
            queries=int(queries),
            unit_micros=price,
            amount_micros=int(queries) * price,
        )
        for model, price, queries in session.execute(grouped)
    ]
