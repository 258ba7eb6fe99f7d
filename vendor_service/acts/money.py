"""Acts that move money, and invoices."""

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy.orm import Session

from shared.billing import Entry, Invoice
from shared.errors import ErrorCode
from vendor_service.accounts import accounts
from vendor_service.acts.act import Act, believe_clock
from vendor_service.audit import log
from vendor_service.clock import Clock
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, LedgerEntry
from vendor_service.errors import APIError, OperatorError
from vendor_service.money import invoices, ledger, thresholds
from vendor_service.money.clock_watch import ClockWatch

_TOLD = ("seq", "kind", "amount_micros", "corrects_seq", "reason", "reference")


@dataclass(frozen=True)
class Recorded:
    """The entry of a top-up, a payment or a refund, and whether it was there already."""

    entry: Entry
    before: bool


def top_up(act: Act, account: str, micros: int, reference: str) -> Recorded:
    """Add to the credit of a prepaid account, once for a reference; raises what `ledger.top_up` does."""
    return _pay(act, "top_up", ledger.top_up, account, micros, reference)


def pay(act: Act, account: str, micros: int, reference: str) -> Recorded:
    """Record what an invoiced account paid, once for a reference; raises what `ledger.payment` does."""
    return _pay(act, "payment", ledger.payment, account, micros, reference)


def refund(
    act: Act, account: str, seq: int, micros: int | None = None, reference: str | None = None
) -> Recorded:
    """Give the charge `seq` back, a part or all that is left; once for a reference, if there is one.

    Raises what `ledger.refund` does.
    """
    owner = accounts.find_account(act.session, account, lock=True)
    if reference is not None:
        entry = ledger.recorded(act.session, owner, "refund", micros, reference, seq)
        if entry is not None:
            return Recorded(ledger.public(entry), before=True)
    act.believe_clock()
    before = owner.credit_micros
    appended = ledger.refund(act.session, owner, seq, act.now, micros, reference)
    return Recorded(_tell(act, owner, before, appended), before=False)


def adjust(act: Act, account: str, micros: int, reason: str) -> Entry:
    """Correct what an account owes, for a reason; raises what `ledger.adjust` does."""
    owner = accounts.find_account(act.session, account, lock=True)
    act.believe_clock()
    before, stood = owner.credit_micros, thresholds.levels(owner)
    entry = ledger.adjust(act.session, owner, micros, reason, act.now)
    thresholds.tell(act.session, owner, stood, act.percents, act.now)
    return _tell(act, owner, before, entry)


def issue_invoice(
    database: Database,
    actor: str,
    clock: Clock,
    account: str,
    month: str,
    *,
    trust_clock: bool = False,
    watch: ClockWatch | None = None,
) -> Invoice:
    """The invoice of a month, which is made final once the month is over.

    Raises:
        UsageError: the month is not written as YYYY-MM.
        OperatorError: there is no such account, or this clock cannot be right.
        APIError: the database is busy or away.
    """
    with database.read() as session:
        believe_clock(session, clock, trust_clock=trust_clock, watch=watch)
        owner = accounts.find_account(session, account)

    def record(session: Session, invoice: Invoice) -> None:
        told = ("month", "number", "total_micros", "currency", "last_seq")
        after = {name: value for name in told if (value := getattr(invoice, name)) is not None}
        log.append(session, actor, "invoice.finalize", account, None, after, clock())

    try:
        return invoices.issue(database, owner.id, month, clock(), on_final=record)
    except APIError as error:
        if error.code is not ErrorCode.NOT_READY:
            raise
        hint = f"if this clock is right, run: vendor accounts repair {account}"
        raise OperatorError(f"{error}; {hint}") from error


def _pay(
    act: Act,
    kind: str,
    append: Callable[[Session, Account, int, int, str], LedgerEntry],
    account: str,
    micros: int,
    reference: str,
) -> Recorded:
    owner = accounts.find_account(act.session, account, lock=True)
    entry = ledger.recorded(act.session, owner, kind, micros, reference)
    if entry is not None:
        return Recorded(ledger.public(entry), before=True)
    act.believe_clock()
    before = owner.credit_micros
    return Recorded(
        _tell(act, owner, before, append(act.session, owner, micros, act.now, reference)), before=False
    )


def _tell(act: Act, owner: Account, credit_before: int | None, entry: LedgerEntry) -> Entry:
    told = {name: value for name in _TOLD if (value := getattr(entry, name)) is not None}
    before, after = {}, told
    if credit_before is not None:
        before, after = {"credit_micros": credit_before}, told | {"credit_micros": owner.credit_micros}
    act.record(f"money.{entry.kind}", owner.name, before or None, after)
    return ledger.public(entry)
