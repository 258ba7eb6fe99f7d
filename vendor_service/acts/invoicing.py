"""Invoices, and the end of a month, at which all of them are issued."""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel
from sqlalchemy.orm import Session

from shared.billing import Buyer, CreditNote, Invoice, Party, Seller
from shared.errors import ErrorCode
from vendor_service.accounts.accounts import find_account
from vendor_service.accounts.keys import Scope
from vendor_service.acts.accounts import by_account
from vendor_service.acts.act import Act, ActContext, OperatorScope
from vendor_service.acts.declaration import Changes, Own, act, preview, query
from vendor_service.acts.names import AccountName
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import credit_notes, invoices, parties
from vendor_service.money.parties import BuyerTerms, SellerTerms
from vendor_service.terms import Term


def _seller(act: Act, *, lock: bool = False) -> Seller:
    return parties.seller(act.session)


MONTH = r"^2[0-9]{3}-(0[1-9]|1[0-2])$"


class IssuedInvoice(BaseModel):
    """An invoice of a month that was closed: what is to be paid, and whether it `is_new`."""

    number: int | None
    account: str
    month: str
    currency: str | None
    total_micros: int
    due_micros: int
    carried_micros: int
    is_new: bool


@query(
    route="GET /accounts/{account}/invoices/{month}",
    own=Own(route="GET /v1/invoices/{month}", scope=Scope.READ_USAGE),
    transaction=False,
)
def issue_invoice(
    context: ActContext,
    account: AccountName,
    month: Annotated[str, Term("YYYY-MM, UTC", typed="--month", pattern=MONTH)],
) -> Invoice:
    """The invoice of a month: a draft while the month lasts, and always the same once it is over.

    It is of the whole account, and so is the view of the key that it takes.
    """
    if (customer := context.customer) is not None:
        customer.require_whole("invoices are")
        return invoices.issue(context.database, customer.account_id, month, context.clock(), context.watch)
    with context.read() as act:
        act.believe_clock()
        owner = find_account(act.session, account)

    try:
        return invoices.issue(
            context.database, owner.id, month, context.clock(), on_final=_finalizing(context)
        )
    except APIError as error:
        if error.code is not ErrorCode.NOT_READY:
            raise
        hint = f"if this clock is right, run: `vendor accounts repair {account}`"
        raise OperatorError(f"{error}; {hint}") from error


def _listed(notes: list[CreditNote]) -> Iterator[dict[str, Any]]:
    for each in notes:
        told = {"number", "name", "issued_on", "month", "invoice_number", "corrects_seq", "reference"}
        yield each.model_dump(include=told | {"total_micros", "currency"})


@query(
    command="credit-notes",
    route="GET /accounts/{account}/credit-notes",
    own=Own(route="GET /v1/credit-notes", scope=Scope.READ_USAGE),
    rows=_listed,
)
def list_credit_notes(act: Act, account: AccountName) -> list[CreditNote]:
    """List an account's credit notes, the oldest first: refunds of charges that an invoice has.

    They are of the whole account, and so is the view of the key that they take.

    Example: vendor credit-notes acme
    """
    if act.customer is not None:
        act.customer.require_whole("credit notes are")
    return credit_notes.of_account(act.session, find_account(act.session, account).id)


@act(
    "month.close",
    command="month close",
    route="POST /months/{month}/close",
    scope=OperatorScope.MONEY,
    title="Close the month",
    done="The books are in order, and all invoices of {month} are issued.",
    transaction=False,
)
def close_month(
    context: ActContext,
    month: Annotated[
        str,
        Term("YYYY-MM, in UTC; one that is over.", label="Month (UTC)", typed="MONTH", pattern=MONTH),
    ],
) -> list[IssuedInvoice]:
    """Verify the books, issue all invoices up to a month that is over, and list that month's.

    A vendor that runs issues them by itself within a minute. Repeated, it issues what is missing.

    Example: vendor month close 2026-11
    """
    with context.read() as act:
        _check_over(act, month)
        act.believe_clock()
    verifier = context.verifier or LedgerVerifier(context.database)
    if faulty := [each for each in verifier.verify(progress=context.progress) if each.problem]:
        raise OperatorError(f"the books of {faulty[0].account} are not in order: {faulty[0].problem}")
    issued = invoices.close(context.database, month, context.clock(), context.watch, _finalizing(context))
    new = {each.number for each in issued}
    with context.write() as act:
        act.record(month, None, {"verified": True, "issued": len(issued)})
        found = [Invoice.model_validate_json(each.content) for each in invoices.finals_of(act.session, month)]
    told = IssuedInvoice.model_fields.keys() - {"is_new"}
    return [
        IssuedInvoice(**{name: getattr(each, name) for name in told}, is_new=each.number in new)
        for each in found
    ]


@preview(close_month)
def _of_close_month(act: Act, month: str) -> Iterator[str]:
    _check_over(act, month)
    waiting = invoices.count_unissued(act.session, month)
    yield "The books of every account are verified first; nothing is issued if one is not in order."
    if waiting:
        yield f"Invoices that are issued, of {month} and the months before it: {waiting:,}."
        yield "They take the next numbers, in the order of months, and never change."
    else:
        yield f"No invoice of {month} or a month before it is missing."


@act(
    "seller.set",
    command="seller set",
    route="PATCH /seller",
    scope=OperatorScope.MONEY,
    title="Change the seller",
    done="Invoices name this seller from now on.",
    of=_seller,
)
def set_seller(act: Act, changes: Annotated[Mapping[str, int | str], Changes(SellerTerms)]) -> Seller:
    """Say who sells, as invoices name it from now on. Prices include the tax; `none` empties a field.

    Example: vendor seller set --legal-name "Vision GmbH" --country DE --tax-id DE1 --tax-basis-points 1900
    """  # fmt: skip
    if not changes:
        raise UsageError("name at least one field that is to change")
    before, after = parties.set_seller(act.session, changes)
    act.record("seller", *_changed(before, after))
    return after


@query(command="seller show", route="GET /seller")
def show_seller(act: Act) -> Seller:
    """Show who sells, as invoices name it.

    Example: vendor seller show
    """
    return parties.seller(act.session)


@act(
    "buyer.set",
    command="buyer set",
    route="PATCH /accounts/{account}/buyer",
    scope=OperatorScope.ACCOUNTS,
    title="Change the buyer",
    done="Invoices of {account} name this buyer from now on.",
    of=by_account,
)
def set_buyer(
    act: Act, account: AccountName, changes: Annotated[Mapping[str, int | str], Changes(BuyerTerms)]
) -> Buyer:
    """Say who buys by an account, as its invoices name it from now on; `none` empties a field.

    Example: vendor buyer set acme --legal-name "Acme SA" --country FR --tax-id FR1 --taxed reverse-charge
    """  # fmt: skip
    if not changes:
        raise UsageError("name at least one field that is to change")
    before, after = parties.set_buyer(find_account(act.session, account, lock=True), changes)
    act.record(account, *_changed(before, after))
    return after


@query(command="buyer show", route="GET /accounts/{account}/buyer")
def show_buyer(act: Act, account: AccountName) -> Buyer:
    """Show who buys by an account, as its invoices name it.

    Example: vendor buyer show acme
    """
    return parties.buyer(find_account(act.session, account))


def _changed(before: Party, after: Party) -> tuple[dict[str, Any], dict[str, Any]]:
    sides = before.model_dump(), after.model_dump()
    names = [name for name in sides[0] if sides[0][name] != sides[1][name]]
    first, second = ({name: side[name] for name in names} for side in sides)
    return first, second


def _check_over(act: Act, month: str) -> None:
    _, end = invoices.month_bounds(month)
    if end > act.now:
        raise UsageError(f"{month} is not over, and is closed when it is")


def _finalizing(context: ActContext) -> Callable[[Session, Invoice], None]:
    """Records in the audit log that an invoice was issued."""

    def record(session: Session, invoice: Invoice) -> None:
        told = ("month", "number", "total_micros", "currency", "last_seq")
        after = {name: value for name in told if (value := getattr(invoice, name)) is not None}
        act = Act(session, context.actor, context.clock, action="invoice.finalize")
        act.record(invoice.account, None, after)

    return record
