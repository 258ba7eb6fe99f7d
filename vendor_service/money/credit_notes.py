"""Credit notes: refunds of charges that an invoice has, each a document with a number of its own.

A refund in the month of its charge is on that month's invoice. Any other has a credit note and is on no
invoice: one is issued with the refund, or with the invoice of the charge, whichever comes last.
"""

from collections.abc import Iterator

from sqlalchemy import Row, Select, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from shared.billing import CreditNote, Invoice, smallest_unit
from vendor_service.clock import month_of, month_start, next_month_start, to_datetime
from vendor_service.database.tables import Account, BooksHead, FinalInvoice, IssuedCreditNote, LedgerEntry
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind


def of_account(session: Session, account_id: str) -> list[CreditNote]:
    """The credit notes of an account, by number."""
    return [CreditNote.model_validate_json(each.content) for each in _rows(session, account_id)]


def issued_between(session: Session, begin: int, end: int) -> list[CreditNote]:
    """The credit notes of all accounts that were issued from one instant to another, by number."""
    dated = (IssuedCreditNote.issued_at >= begin, IssuedCreditNote.issued_at < end)
    found = select(IssuedCreditNote.content).where(*dated).order_by(IssuedCreditNote.number)
    return [CreditNote.model_validate_json(each) for each in session.scalars(found)]


def given_back_until(session: Session, account: Account, end: int) -> Iterator[tuple[int, int]]:
    """When, before `end`, how much was given back of another month's charge."""
    refunds, _, pairs = _refunds(account)
    for refund, charge in session.execute(pairs.where(refunds.created_at < end)):
        if month_start(refund.created_at) != month_start(charge.created_at):
            yield refund.created_at, refund.amount_micros


def issue_due(
    session: Session, account: Account, charged_at: int, now: int, refund: int | None = None
) -> None:
    """Issue what is due of a month's charges, if that month has its invoice; or of one `refund` of them.

    This transaction has locked the account. Whoever issues one waits for the one before.
    """
    begin = month_start(charged_at)
    month = month_of(begin)
    invoice = _invoice(session, account, month)
    due = [] if invoice is None else _due(session, account, begin, refund)
    if invoice is None or not due:
        return
    head = session.scalars(select(BooksHead).with_for_update()).one()
    for refunded, charged in due:
        head.credit_notes_issued += 1
        number = head.credit_notes_issued
        note = _made(
            invoice, account.name, refunded, charged, number, now, _credited(session, account, number)
        )
        session.add(
            IssuedCreditNote(
                number=number,
                account_id=account.id,
                seq=refunded.seq,
                month=month,
                issued_at=now,
                content=note.model_dump_json(),
            )
        )
        session.flush()
        told = note.model_dump(include={"number", "name", "month", "invoice_number", "seq", "total_micros"})
        told["currency"] = note.currency
        events.emit(session, EventKind.CREDIT_NOTE_ISSUED, account, told, now)


def announced(session: Session, account: Account, charged_at: int, now: int) -> str | None:
    """When the credit note of a refund is issued, in words; `None` if it needs none."""
    begin = month_start(charged_at)
    if begin == month_start(account.instant(now)):
        return None
    month = month_of(begin)
    invoice = _invoice(session, account, month)
    return f"with the invoice of {month}" if invoice is None else f"at once, for invoice {invoice.number}"


def fault(session: Session, account: Account) -> str | None:
    """The first fault of an account's credit notes: each refund that needs one has one, and it is right."""
    before = 0
    for stored in _rows(session, account.id):
        refund = session.get(LedgerEntry, (account.id, stored.seq))
        charge = refund and session.get(LedgerEntry, (account.id, refund.corrects_seq))
        invoice = _invoice(session, account, stored.month)
        if refund is None or charge is None or invoice is None:
            return f"credit note {stored.number} is of no refund of an invoiced charge"
        issued = CreditNote.model_validate_json(stored.content)
        months = [month_of(each.created_at) for each in (refund, charge)]
        again = _made(invoice, issued.account, refund, charge, stored.number, stored.issued_at, before)
        if issued != again or months[0] == stored.month or months[1] != stored.month:
            return f"credit note {stored.number} is not what the entries and its invoice say"
        before += refund.amount_micros
    if (seq := _without_note(session, account)) is not None:
        return f"refund {seq} is of an invoiced month, and has no credit note"
    return None


def fault_of_numbers(session: Session, issued: int) -> str | None:
    """What is wrong with the numbers of all credit notes, of which so many were `issued`."""
    numbered = func.count(IssuedCreditNote.number), func.coalesce(func.max(IssuedCreditNote.number), 0)
    count, last = session.execute(select(*numbered)).one()
    if not count == last == issued:
        return f"there are {count} credit notes, but the last has {last} and {issued} were issued"
    return None


def _without_note(session: Session, account: Account) -> int | None:
    """A refund that has no credit note, though it needs one; its number in the ledger."""
    mine = select(FinalInvoice.month).where(FinalInvoice.account_id == account.id)
    invoiced = set(session.scalars(mine))
    for refund, charge in session.execute(_unnoted(account)[2]):
        months = [month_of(each.created_at) for each in (refund, charge)]
        if months[0] != months[1] and months[1] in invoiced:
            return int(refund.seq)
    return None


def _made(
    invoice: Invoice,
    account: str,
    refund: LedgerEntry,
    charge: LedgerEntry,
    number: int,
    issued_at: int,
    before: int,
) -> CreditNote:
    """The note of a refund; credit notes gave the account back so much `before`."""
    return CreditNote(
        number=number,
        currency=invoice.currency,
        total_micros=refund.amount_micros,
        brought_micros=before % smallest_unit(invoice.currency),
        seller=invoice.seller,
        buyer=invoice.buyer,
        issued_on=to_datetime(issued_at).date(),
        account=account,
        month=invoice.month,
        invoice_number=invoice.number,
        invoice_issued_on=invoice.issued_on,
        seq=refund.seq,
        entry_hash=refund.entry_hash,
        corrects_seq=charge.seq,
        model=charge.model,
        reference=refund.reference,
    )


_Pairs = tuple[type[LedgerEntry], type[LedgerEntry], Select[LedgerEntry, LedgerEntry]]


def _refunds(account: Account) -> _Pairs:
    """Refunds, charges, and an account's refunds with the charges that they give back."""
    refunds, charges = aliased(LedgerEntry), aliased(LedgerEntry)
    same = and_(charges.account_id == account.id, charges.seq == refunds.corrects_seq)
    pairs = select(refunds, charges).join_from(refunds, charges, same)
    return refunds, charges, pairs.where(refunds.account_id == account.id, refunds.corrects_seq > 0)


def _unnoted(account: Account) -> _Pairs:
    """The same of refunds that have no credit note; one of nothing needs none."""
    refunds, charges, pairs = _refunds(account)
    noted = select(IssuedCreditNote.seq).where(IssuedCreditNote.account_id == account.id)
    return refunds, charges, pairs.where(refunds.amount_micros > 0, refunds.seq.not_in(noted))


def _due(
    session: Session, account: Account, begin: int, refund: int | None = None
) -> list[Row[LedgerEntry, LedgerEntry]]:
    """Refunds without a note, of charges of the month that begins then, in other months; with the charges."""
    end = next_month_start(begin)
    refunds, charges, pairs = _unnoted(account)
    found = pairs.where(
        charges.created_at >= begin,
        charges.created_at < end,
        or_(refunds.created_at < begin, refunds.created_at >= end),
    )
    if refund is not None:
        found = found.where(refunds.seq == refund)
    return list(session.execute(found.order_by(refunds.seq)))


def _rows(session: Session, account_id: str) -> list[IssuedCreditNote]:
    mine = select(IssuedCreditNote).where(IssuedCreditNote.account_id == account_id)
    return list(session.scalars(mine.order_by(IssuedCreditNote.number)))


def _invoice(session: Session, account: Account, month: str) -> Invoice | None:
    mine = (FinalInvoice.account_id == account.id, FinalInvoice.month == month)
    content = session.scalar(select(FinalInvoice.content).where(*mine))
    return None if content is None else Invoice.model_validate_json(content)


def _credited(session: Session, account: Account, number: int) -> int:
    """How much the account's credit notes before this one gave back."""
    earlier = (IssuedCreditNote.account_id == account.id, IssuedCreditNote.number < number)
    noted = select(IssuedCreditNote.seq).where(*earlier)
    mine = (LedgerEntry.account_id == account.id, LedgerEntry.seq.in_(noted))
    return int(session.scalar(select(func.sum(LedgerEntry.amount_micros)).where(*mine)) or 0)
