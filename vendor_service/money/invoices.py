"""Invoices: a month of the ledger, summed up; once the month is over, the same whenever it is asked for."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select
from sqlalchemy.orm import Session

from shared.billing import AdjustmentLine, Invoice, InvoiceLine, smallest_unit
from shared.errors import ErrorCode
from shared.kinds import KINDS
from vendor_service.clock import (
    HOUR,
    Clock,
    ClockWatch,
    from_datetime,
    month_of,
    month_start,
    next_month_start,
    to_datetime,
)
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, BooksHead, FinalInvoice, LedgerEntry, LedgerTotal
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import credit_notes, currency, parties
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind

OnFinal = Callable[[Session, Invoice], None]
# The kinds of entries that invoices bill; the others pay.
BILLED = ("charge", "refund", "adjustment")
# What a final invoice has that its entries do not say.
AS_ISSUED = ("account", "number", "currency", "seller", "buyer", "issued_on", "due_on")
_log = logging.getLogger(__name__)


def month_bounds(month: str) -> tuple[int, int]:
    """The first microsecond of a UTC month written as YYYY-MM, and that of the next one.

    Raises:
        UsageError: it is no month.
    """
    try:
        first = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        if f"{first:%Y-%m}" != month:  # it takes 2026-1 too, under which no invoice is kept
            raise ValueError
        begin = from_datetime(first)
        return begin, next_month_start(begin)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{month!r} is no month; write it as 2026-11") from error


def issue(
    database: Database,
    account_id: str,
    month: str,
    now: int,
    watch: ClockWatch | None = None,
    on_final: OnFinal | None = None,
) -> Invoice:
    """The invoice of a month. A month that is over is closed first: no later entry will be dated into it.

    Whatever is in the books, they are locked only to close the month and to store its invoice, each in
    constant time; what is summed up is read beside all that goes on.

    `on_final` is told of an invoice in the transaction that stores it.

    No final invoice is made while the `watch` finds the clock wrong; without one the clock is believed.

    A month in which nothing was charged or corrected is closed, and takes no number.

    Raises:
        UsageError: `month` is not written as YYYY-MM.
        APIError: `not_found`, the account was opened later; or `not_ready`, the clock is wrong, or one was
            that wrote the account's books.
    """
    invoice, account = _summed_up(database, account_id, month, now, watch)
    if account is None:
        return invoice
    _issue_before(database, month, now, watch, on_final)
    return _store(database, account, month, invoice, now, on_final)


def _summed_up(
    database: Database, account_id: str, month: str, now: int, watch: ClockWatch | None
) -> tuple[Invoice, Account | None]:
    """The invoice of a month, with the account as it was summed up if it is final and has to be stored."""
    _, end = month_bounds(month)
    with database.read() as session:
        account = session.get_one(Account, account_id)
        if (stored := _stored(session, account, month)) is not None:
            return stored, None
        if end <= account.created_at:
            opened = month_of(account.created_at)
            message = f"there is no invoice of {month}: {account.name} was opened in {opened}"
            raise APIError(ErrorCode.NOT_FOUND, message)
        if end > now:
            draft = summed(session, account, month, final=False)
            return draft.model_copy(update=_parties(session, account)), None
    if watch is not None:
        watch.check()
    if account.ledger_at < end:
        _close(database, account_id, end, now)
    with database.read() as session:
        account = session.get_one(Account, account_id)
        invoice = summed(session, account, month, final=True)
    # An empty one stays so, since the month is closed.
    return invoice, None if invoice.is_empty else account


def summed(session: Session, account: Account, month: str, *, final: bool) -> Invoice:
    """Sum up a month by the running totals of the ledger.

    Raises:
        OperatorError: the lines and the charges differ; the totals are wrong.
    """
    begin, end = month_bounds(month)
    rows = _rows(session, account, begin, end)
    amounts: dict[str, int] = {}
    for row in rows:
        amounts[row.kind] = amounts.get(row.kind, 0) + int(row.amount)
    top_ups, payments = amounts.pop("top_up", 0), amounts.pop("payment", 0)
    credited, credited_before = _credited(session, account, begin, end)
    first, last = (
        None if seq is None else session.get_one(LedgerEntry, (account.id, seq))
        for seq in (
            min((row.first for row in rows), default=None),
            max((row.last for row in rows), default=None),
        )
    )
    invoice = Invoice(
        account=account.name,
        month=month,
        final=final,
        lines=_lines(rows),
        refunds_micros=amounts.get("refund", 0) - credited,
        adjustments_micros=amounts.get("adjustment", 0),
        credited_micros=credited,
        total_micros=credited - sum(amounts.values()),
        top_ups_micros=top_ups,
        payments_micros=payments,
        balance_due_micros=_balance_due(session, account, end),
        currency=currency.current(session),
        brought_micros=_brought(session, account, begin, credited_before),
        first_seq=None if first is None else first.seq,
        first_hash=None if first is None else first.entry_hash,
        last_seq=None if last is None else last.seq,
        last_hash=None if last is None else last.entry_hash,
        adjustments=_adjustments(session, account, begin, end) if "adjustment" in amounts else [],
    )
    # The lines are summed by price, the amounts by entry: they must come to the same.
    if sum(line.amount_micros for line in invoice.lines) != -amounts.get("charge", 0):
        raise OperatorError(
            f"the lines of {account.name}'s invoice of {month} do not add up to its charges; nothing was "
            f"issued. See: `vendor ledger verify {account.name}`"
        )
    return invoice


def _issue_before(
    database: Database, month: str, now: int, watch: ClockWatch | None, on_final: OnFinal | None
) -> None:
    """Have all invoices of earlier months issued, so that numbers are in the order of months."""
    begin, _ = month_bounds(month)
    try:
        close(database, month_of(begin - 1), now, watch, on_final)
    except OperatorError as error:  # of an account whose books are not in order
        _log.error("an earlier invoice could not be issued: %s", error)


def close(
    database: Database,
    until: str,
    now: int,
    watch: ClockWatch | None = None,
    on_final: OnFinal | None = None,
    after: str = "",
) -> list[Invoice]:
    """Issue all invoices of the months up to one that is over, a month after the other, by account.

    Months up to `after` are known to be closed. Whoever is interrupted goes on where they were.

    Raises:
        UsageError: the month is not written as YYYY-MM, or not over.
        OperatorError: the books of an account are not in order; the others' invoices are issued.
        APIError: `not_ready`; see `issue`.
    """
    _, end = month_bounds(until)
    if end > now:
        raise UsageError(f"{until} is not over, and is closed when it is")
    with database.read() as session:
        months = _months(session, until, after)
    issued: list[Invoice] = []
    faults: list[OperatorError] = []
    for month in months:
        with database.read() as session:
            missing = _unissued(session, month)
        for each in missing:
            try:
                invoice, account = _summed_up(database, each, month, now, watch)
            except OperatorError as error:  # the others' are issued all the same
                faults.append(error)
                continue
            if account is not None:
                invoice = _store(database, account, month, invoice, now, on_final)
            issued.append(invoice)
    if faults:
        raise faults[0]
    return issued


def count_unissued(session: Session, until: str) -> int:
    """How many invoices of the months up to one that is over are not issued."""
    return sum(len(_unissued(session, month)) for month in _months(session, until))


def _months(session: Session, until: str, after: str = "") -> list[str]:
    """The months from that of the first account, or from behind one, up to another one."""
    _, end = month_bounds(until)
    first = session.scalar(select(func.min(Account.created_at)))
    begin = end if first is None else month_start(first)
    if after:
        begin = max(begin, month_bounds(after)[1])
    months = []
    while begin < end:
        months.append(month_of(begin))
        begin = next_month_start(begin)
    return months


def _unissued(session: Session, month: str) -> list[str]:
    """The accounts of a month that have something to bill and no invoice, by name.

    A refund is billed beside its charge, or by a credit note.
    """
    begin, end = month_bounds(month)
    issued = select(FinalInvoice.account_id).where(FinalInvoice.month == month)
    billed = select(LedgerTotal.account_id).where(
        LedgerTotal.hour >= begin // HOUR,
        LedgerTotal.hour < end // HOUR,
        LedgerTotal.kind.in_(("charge", "adjustment")),
    )
    found = select(Account.id).where(Account.id.in_(billed), Account.id.not_in(issued))
    return list(session.scalars(found.order_by(Account.name)))


def finals(session: Session, account_id: str) -> list[FinalInvoice]:
    """The final invoices of an account, by month."""
    mine = select(FinalInvoice).where(FinalInvoice.account_id == account_id)
    return list(session.scalars(mine.order_by(FinalInvoice.month)))


def fault_of_numbers(session: Session, issued: int) -> str | None:
    """What is wrong with the numbers of all final invoices, of which so many were `issued`."""
    numbered = func.count(FinalInvoice.number), func.coalesce(func.max(FinalInvoice.number), 0)
    count, last = session.execute(select(*numbered)).one()
    if not count == last == issued:
        return f"there are {count} numbered invoices, but the last has {last} and {issued} were issued"
    return None


def finals_of(session: Session, month: str) -> list[FinalInvoice]:
    """The final invoices of a month, of all accounts."""
    found = select(FinalInvoice).where(FinalInvoice.month == month)
    return list(session.scalars(found.order_by(FinalInvoice.number)))


def _stored(session: Session, account: Account, month: str) -> Invoice | None:
    mine = (FinalInvoice.account_id == account.id, FinalInvoice.month == month)
    content = session.scalar(select(FinalInvoice.content).where(*mine))
    return None if content is None else Invoice.model_validate_json(content)


def _close(database: Database, account_id: str, end: int, now: int) -> None:
    with database.write() as session:
        account = session.get_one(Account, account_id, with_for_update=True)
        if account.is_ahead(now):
            message = (
                "the vendor's clock is wrong, or was when these books were written; no month is closed now"
            )
            raise APIError(ErrorCode.NOT_READY, message, retry_after=30)
        account.ledger_at = max(account.ledger_at, end)


def _store(
    database: Database,
    summed_from: Account,
    month: str,
    invoice: Invoice,
    now: int,
    on_final: OnFinal | None,
) -> Invoice:
    with database.write() as session:
        account = session.get_one(Account, summed_from.id, with_for_update=True)
        if (stored := _stored(session, account, month)) is not None:
            return stored  # somebody else asked at the same moment
        # Whoever issues one waits here for the one before: a number is never given back, nor given twice.
        head = session.scalars(select(BooksHead).with_for_update()).one()
        head.invoices_issued += 1
        issued_on = to_datetime(now).date()
        named = _parties(session, account)
        dates = {"issued_on": issued_on, "due_on": issued_on + timedelta(days=named["seller"].due_days)}
        invoice = invoice.model_copy(update={"number": head.invoices_issued, **named, **dates})
        session.add(
            FinalInvoice(
                account_id=account.id,
                month=month,
                ledger_seq=summed_from.ledger_seq,
                issued_at=now,
                number=invoice.number,
                content=invoice.model_dump_json(),
            )
        )
        told = {
            "month": month,
            "number": invoice.number,
            "total_micros": invoice.total_micros,
            "currency": invoice.currency,
            "last_seq": invoice.last_seq,
        }
        events.emit(session, EventKind.INVOICE_FINALIZED, account, told, now)
        if on_final is not None:
            on_final(session, invoice)
        session.flush()
        credit_notes.issue_due(session, account, month_bounds(month)[0], now)
    return invoice


def _rows(session: Session, account: Account, begin: int, end: int) -> list[Row[Any]]:
    group = (
        LedgerTotal.kind,
        LedgerTotal.model,
        LedgerTotal.model_fingerprint,
        LedgerTotal.sold,
        LedgerTotal.unit_micros,
        LedgerTotal.batch,
    )
    sums = (
        func.sum(LedgerTotal.quantity).label("quantity"),
        func.sum(LedgerTotal.amount_micros).label("amount"),
        func.min(LedgerTotal.first_seq).label("first"),
        func.max(LedgerTotal.last_seq).label("last"),
    )
    in_month = (LedgerTotal.hour >= begin // HOUR, LedgerTotal.hour < end // HOUR)
    mine = select(*group, *sums).where(LedgerTotal.account_id == account.id, *in_month)
    return list(session.execute(mine.group_by(*group)))


def _balance_due(session: Session, account: Account, end: int) -> int | None:
    if account.credit_micros is not None:
        return None
    until = (LedgerTotal.account_id == account.id, LedgerTotal.hour < end // HOUR)
    return -int(session.scalar(select(func.sum(LedgerTotal.amount_micros)).where(*until)) or 0)


def _credited(session: Session, account: Account, begin: int, end: int) -> tuple[int, int]:
    """What credit notes have to give back of what was refunded in a month, and before it."""
    in_it = before = 0
    for refunded_at, micros in credit_notes.given_back_until(session, account, end):
        in_it, before = (in_it + micros, before) if refunded_at >= begin else (in_it, before + micros)
    return in_it, before


def _brought(session: Session, account: Account, begin: int, credited: int) -> int:
    """The rest, below a cent, of all that was billed for earlier months; credit notes have the `credited`."""
    earlier = (LedgerTotal.account_id == account.id, LedgerTotal.hour < begin // HOUR)
    billed = (*earlier, LedgerTotal.kind.in_(BILLED))
    charged = -int(session.scalar(select(func.sum(LedgerTotal.amount_micros)).where(*billed)) or 0)
    return (charged + credited) % smallest_unit(currency.current(session))


def _parties(session: Session, account: Account) -> dict[str, Any]:
    return {"seller": parties.seller(session), "buyer": parties.buyer(account)}


def _adjustments(session: Session, account: Account, begin: int, end: int) -> list[AdjustmentLine]:
    mine = (LedgerEntry.account_id == account.id, LedgerEntry.kind == "adjustment")
    dated = (LedgerEntry.created_at >= begin, LedgerEntry.created_at < end, LedgerEntry.amount_micros != 0)
    found = select(LedgerEntry.seq, LedgerEntry.amount_micros, LedgerEntry.reason).where(*mine, *dated)
    return [
        AdjustmentLine(seq=seq, amount_micros=micros, reason=reason)
        for seq, micros, reason in session.execute(found.order_by(LedgerEntry.seq))
    ]


def _lines(rows: list[Row[Any]]) -> list[InvoiceLine]:
    """A line for each kind, model and price, in the order of the kinds."""
    kinds = list(KINDS)
    return [
        InvoiceLine(
            model=row.model,
            model_fingerprint=row.model_fingerprint,
            kind=row.sold,
            queries=int(row.quantity),
            unit_micros=row.unit_micros,
            amount_micros=int(row.quantity) * row.unit_micros,
            batch=row.batch,
        )
        for row in sorted(
            (row for row in rows if row.sold),
            key=lambda row: (
                kinds.index(row.sold),
                row.model,
                row.model_fingerprint,
                row.batch,
                row.unit_micros,
            ),
        )
    ]


class MonthsEnd:
    """Issues what is due of the months that are over, for whoever calls `issue_due` now and then."""

    def __init__(self, database: Database, clock: Clock, watch: ClockWatch) -> None:
        self._database, self._clock, self._watch = database, clock, watch
        self._closed = ""

    def issue_due(self) -> None:
        """Issue all invoices of months that are over; nothing is asked twice of a month. See `close`."""
        now = self._clock()
        last = month_of(month_start(now) - 1)
        if last > self._closed:
            issued = close(self._database, last, now, self._watch, after=self._closed)
            self._closed = last
            if issued:
                _log.info("%d invoices were issued of the months up to %s", len(issued), last)
