"""Invoices and credit notes as XML of EN 16931, in the syntax of Factur-X and ZUGFeRD, by drafthorse.

Prices include the tax, so amounts without it are made from cumulated ones: the lines add up to the total.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from shared.billing import Billed, CreditNote, Invoice, Party, smallest_unit
from vendor_service.clock import to_datetime
from vendor_service.errors import OperatorError
from vendor_service.money.invoice_formats import Bill, label_of
from vendor_service.money.invoices import month_bounds

_GUIDELINE = "urn:cen.eu:en16931:2017"
_INVOICE, _CREDIT_NOTE, _SEPA, _PIECES, _VAT = "380", "381", "58", "C62", "VAT"
# Prices are of so many queries, so that six digits suffice.
_PRICED = 1000
# The category of the tax, by how the buyer is taxed, and why there is none.
_CATEGORIES = {"standard": "S", "reverse-charge": "AE", "exempt": "E"}
_REASONS = {"AE": "Reverse charge", "E": "Exempt from tax"}


def as_xml(bill: Bill) -> bytes:
    """The XML of a final invoice or of a credit note, valid by the schema of Factur-X's profile EN 16931.

    Raises:
        OperatorError: something is missing that EN 16931 wants, or the extra `einvoice` is not installed.
    """
    try:
        from drafthorse.models.document import Document
    except ImportError as error:
        raise OperatorError("XML takes the extra einvoice: pip install 'tuition[einvoice]'") from error
    _check(bill)
    document = Document()
    document.context.guideline_parameter.id = _GUIDELINE
    document.header.issue_date_time = bill.issued_on
    trade = document.trade
    for side, party in ((trade.agreement.seller, bill.seller), (trade.agreement.buyer, bill.buyer)):
        _name(side, party)
    if bill.buyer.reference:
        trade.agreement.buyer_reference = bill.buyer.reference
    settlement = trade.settlement
    settlement.currency_code = bill.currency
    begin, end = (to_datetime(each) for each in month_bounds(bill.month))
    last_day = (end - timedelta(days=1)).date()
    settlement.period.start, settlement.period.end = begin.date(), last_day
    trade.delivery.event.occurrence = last_day
    if isinstance(bill, CreditNote):
        document.header.id, document.header.type_code = bill.name, _CREDIT_NOTE
        _refer(settlement, bill)
    else:
        document.header.id, document.header.type_code = str(bill.number), _INVOICE
        _add_payment(settlement, bill)
    net = bill.billed_micros - bill.tax_micros
    lines, allowances, charges = _add_amounts(trade, bill, net)
    _add_tax(settlement, bill, net)
    sums = settlement.monetary_summation
    sums.line_total, sums.allowance_total, sums.charge_total = map(_decimal, (lines, allowances, charges))
    sums.tax_basis_total = _decimal(net)
    sums.tax_total = (_decimal(bill.tax_micros), bill.currency)
    sums.grand_total = _decimal(bill.billed_micros)
    is_settled = isinstance(bill, Invoice) and bill.balance_due_micros is None
    sums.prepaid_total = _decimal(bill.billed_micros if is_settled else 0)
    sums.due_amount = _decimal(0 if is_settled else bill.billed_micros)
    return bytes(document.serialize(schema="FACTUR-X_EN16931"))


_SELLER = "`vendor seller set --legal-name NAME --country COUNTRY`"
_BUYER = "`vendor buyer set ACCOUNT --legal-name NAME --country COUNTRY`"


def _check(bill: Bill) -> None:
    wanted = {
        "the month to be over": isinstance(bill, CreditNote) or (bill.final and bill.number is not None),
        "a currency (`vendor currency EUR`)": bill.currency,
        f"the seller's name, country and VAT identifier ({_SELLER})": _is_known(bill.seller)
        and bill.seller.tax_id,
        f"the buyer's name and country ({_BUYER})": _is_known(bill.buyer),
        "the buyer's VAT identifier, for a reverse charge": bill.buyer.taxed != "reverse-charge"
        or bill.buyer.tax_id,
    }
    if missing := [name for name, there in wanted.items() if not there]:
        raise OperatorError(
            f"XML of EN 16931 needs {', '.join(missing)}; parties are named for invoices to come"
        )


def _is_known(party: Party) -> bool:
    return bool(party.legal_name and party.country)


def _name(side: Any, party: Party) -> None:  # noqa: ANN401 - drafthorse has no types
    from drafthorse.models.party import TaxRegistration

    side.name = party.legal_name
    address = side.address
    address.line_one, address.postcode, address.city_name = party.street, party.postcode, party.city
    address.country_id = party.country
    if party.tax_id:
        side.tax_registrations.add(TaxRegistration(id=("VA", party.tax_id)))


def _add_payment(settlement: Any, invoice: Invoice) -> None:  # noqa: ANN401
    from drafthorse.models.payment import PaymentMeans, PaymentTerms

    if invoice.seller.iban:
        means = PaymentMeans()
        means.type_code = _SEPA
        means.payee_account.iban = invoice.seller.iban
        if invoice.seller.bic:
            means.payee_institution.bic = invoice.seller.bic
        settlement.payment_means.add(means)
    terms = PaymentTerms()
    terms.due = invoice.due_on
    settlement.terms.add(terms)


def _refer(settlement: Any, note: CreditNote) -> None:  # noqa: ANN401
    """Name the invoice that has the charge."""
    from drafthorse.models.payment import PaymentTerms

    terms = PaymentTerms()
    terms.description = "Set off against the balance of the account."
    settlement.terms.add(terms)
    referred = settlement.invoice_referenced_document
    referred.issuer_assigned_id = str(note.invoice_number)
    if note.invoice_issued_on is not None:
        referred.issue_date_time = note.invoice_issued_on


# A part of a total: its name, and micro-units with the tax; of a line how many at which price of so many.
_Item = tuple[str, int, tuple[int, int, int] | None]


def _items(bill: Bill) -> Iterator[_Item]:
    """What the total is made of."""
    if isinstance(bill, CreditNote):
        yield f"Refund of charge {bill.corrects_seq}", bill.total_micros, (1, bill.total_micros, 1)
        if bill.brought_micros:
            yield "Rest of earlier credit notes", bill.brought_micros, None
        return
    for line in bill.lines:
        yield label_of(bill, line), line.amount_micros, (line.queries, line.unit_micros, _PRICED)
    if bill.brought_micros:
        yield "Rest of earlier months", bill.brought_micros, None
    if bill.refunds_micros:
        yield "Refunds", -bill.refunds_micros, None
    for each in bill.adjustments:
        yield f"Adjustment: {each.reason}", -each.amount_micros, None


def _add_amounts(trade: Any, bill: Bill, net: int) -> tuple[int, int, int]:  # noqa: ANN401
    """Add lines, allowances and charges that make up `net`; the sums of each."""
    items, unit = list(_items(bill)), smallest_unit(bill.currency)
    gross = before = lines = allowances = charges = 0
    for number, (name, micros, line) in enumerate(items, start=1):
        gross += micros
        so_far = gross * 10_000 // (10_000 + bill.tax_basis_points) // unit * unit
        amount, before = (net if number == len(items) else so_far) - before, so_far
        if line is not None:
            trade.items.add(_line(bill, number, name, line, amount))
            lines += amount
            continue
        trade.settlement.allowance_charge.add(_allowance(bill, name, amount))
        allowances, charges = allowances + max(0, -amount), charges + max(0, amount)
    return lines, allowances, charges


def _line(bill: Billed, number: int, name: str, line: tuple[int, int, int], amount: int) -> Any:  # noqa: ANN401
    from drafthorse.models.tradelines import LineItem

    item = LineItem()
    item.document.line_id = str(number)
    item.product.name = name
    quantity, unit_micros, of = line
    price = Decimal(unit_micros * 10_000 * of) / Decimal((10_000 + bill.tax_basis_points) * 1_000_000)
    item.agreement.net.amount = price.quantize(Decimal("1.000000"))
    item.agreement.net.basis_quantity = (Decimal(of), _PIECES)
    item.delivery.billed_quantity = (Decimal(quantity), _PIECES)
    _set_tax(item.settlement.trade_tax, bill)
    item.settlement.monetary_summation.total_amount = _decimal(amount)
    return item


def _allowance(bill: Billed, name: str, amount: int) -> Any:  # noqa: ANN401
    from drafthorse.models.accounting import CategoryTradeTax, TradeAllowanceCharge

    found = TradeAllowanceCharge()
    found.indicator = amount > 0
    found.actual_amount = _decimal(abs(amount))
    found.reason = name
    tax = CategoryTradeTax()
    _set_tax(tax, bill)
    found.trade_tax.add(tax)
    return found


def _add_tax(settlement: Any, bill: Billed, net: int) -> None:  # noqa: ANN401
    from drafthorse.models.accounting import ApplicableTradeTax

    tax = ApplicableTradeTax()
    _set_tax(tax, bill)
    tax.calculated_amount, tax.basis_amount = _decimal(bill.tax_micros), _decimal(net)
    if reason := _REASONS.get(_category(bill)):
        tax.exemption_reason = reason
    settlement.trade_tax.add(tax)


def _set_tax(tax: Any, bill: Billed) -> None:  # noqa: ANN401
    tax.type_code, tax.category_code = _VAT, _category(bill)
    tax.rate_applicable_percent = Decimal(bill.tax_basis_points) / 100


def _category(bill: Billed) -> str:
    found = _CATEGORIES[bill.buyer.taxed]
    return "E" if found == "S" and not bill.tax_basis_points else found


def _decimal(micros: int) -> Decimal:
    return (Decimal(micros) / 1_000_000).quantize(Decimal("1.00"))
