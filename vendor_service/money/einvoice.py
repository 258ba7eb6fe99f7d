"""An invoice as XML of EN 16931, in the syntax of Factur-X and ZUGFeRD; drafthorse writes it.

Prices include the tax, so amounts without it are made from cumulated ones: the lines add up to the total.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Any

from shared.billing import Invoice, Party, smallest_unit
from vendor_service.clock import to_datetime
from vendor_service.errors import OperatorError
from vendor_service.money.invoice_formats import label_of, reference_of
from vendor_service.money.invoices import month_bounds

_GUIDELINE = "urn:cen.eu:en16931:2017"
_INVOICE, _SEPA, _PIECES, _VAT = "380", "58", "C62", "VAT"
# Prices are of so many queries, so that six digits suffice.
_PRICED = 1000
# The category of the tax, by how the buyer is taxed, and why there is none.
_CATEGORIES = {"standard": "S", "reverse-charge": "AE", "exempt": "E"}
_REASONS = {"AE": "Reverse charge", "E": "Exempt from tax"}


def as_xml(invoice: Invoice) -> bytes:
    """The XML of a final invoice, valid by the schema of Factur-X's profile EN 16931.

    Raises:
        OperatorError: something is missing that EN 16931 wants, or the extra `einvoice` is not installed.
    """
    try:
        from drafthorse.models.document import Document
    except ImportError as error:
        raise OperatorError("XML takes the extra einvoice: pip install 'tuition[einvoice]'") from error
    _check(invoice)
    document = Document()
    document.context.guideline_parameter.id = _GUIDELINE
    document.header.id, document.header.type_code = str(invoice.number), _INVOICE
    document.header.issue_date_time = invoice.issued_on
    trade = document.trade
    for side, party in ((trade.agreement.seller, invoice.seller), (trade.agreement.buyer, invoice.buyer)):
        _name(side, party)
    if invoice.buyer.reference:
        trade.agreement.buyer_reference = invoice.buyer.reference
    settlement = trade.settlement
    settlement.currency_code, settlement.payment_reference = invoice.currency, reference_of(invoice)
    begin, end = (to_datetime(each) for each in month_bounds(invoice.month))
    settlement.period.start, settlement.period.end = begin.date(), (end - timedelta(days=1)).date()
    _add_payment(settlement, invoice)
    net = invoice.billed_micros - invoice.tax_micros
    lines, allowances, charges = _add_amounts(trade, invoice, net)
    _add_tax(settlement, invoice, net)
    sums = settlement.monetary_summation
    sums.line_total, sums.allowance_total, sums.charge_total = map(_decimal, (lines, allowances, charges))
    sums.tax_basis_total = _decimal(net)
    sums.tax_total = (_decimal(invoice.tax_micros), invoice.currency)
    sums.grand_total = _decimal(invoice.billed_micros)
    is_prepaid = invoice.balance_due_micros is None
    sums.prepaid_total = _decimal(invoice.billed_micros if is_prepaid else 0)
    sums.due_amount = _decimal(0 if is_prepaid else invoice.billed_micros)
    return bytes(document.serialize(schema="FACTUR-X_EN16931"))


_SELLER = "`vendor seller set --legal-name NAME --country COUNTRY`"
_BUYER = "`vendor buyer set ACCOUNT --legal-name NAME --country COUNTRY`"


def _check(invoice: Invoice) -> None:
    wanted = {
        "the month to be over": invoice.final and invoice.number is not None,
        "a currency (`vendor currency EUR`)": invoice.currency,
        f"the seller's name, country and VAT identifier ({_SELLER})": _is_known(invoice.seller)
        and invoice.seller.tax_id,
        f"the buyer's name and country ({_BUYER})": _is_known(invoice.buyer),
        "the buyer's VAT identifier, for a reverse charge": invoice.buyer.taxed != "reverse-charge"
        or invoice.buyer.tax_id,
    }
    if missing := [name for name, there in wanted.items() if not there]:
        raise OperatorError(
            f"an invoice as XML wants {', '.join(missing)}; parties are named for invoices to come"
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


def _items(invoice: Invoice) -> Iterator[tuple[str, int, Any]]:
    """What the total is made of, with the tax: a name, micro-units, and the line if it is one."""
    for line in invoice.lines:
        yield label_of(invoice, line), line.amount_micros, line
    if invoice.brought_micros:
        yield "Rest of earlier months", invoice.brought_micros, None
    if invoice.refunds_micros:
        yield "Refunds", -invoice.refunds_micros, None
    for each in invoice.adjustments:
        yield f"Adjustment: {each.reason}", -each.amount_micros, None


def _add_amounts(trade: Any, invoice: Invoice, net: int) -> tuple[int, int, int]:  # noqa: ANN401
    """Add lines, allowances and charges that make up `net`; the sums of each."""
    items, unit = list(_items(invoice)), smallest_unit(invoice.currency)
    gross = before = lines = allowances = charges = 0
    for number, (name, micros, line) in enumerate(items, start=1):
        gross += micros
        so_far = gross * 10_000 // (10_000 + invoice.tax_basis_points) // unit * unit
        amount, before = (net if number == len(items) else so_far) - before, so_far
        if line is not None:
            trade.items.add(_line(invoice, number, name, line, amount))
            lines += amount
            continue
        trade.settlement.allowance_charge.add(_allowance(invoice, name, amount))
        allowances, charges = allowances + max(0, -amount), charges + max(0, amount)
    return lines, allowances, charges


def _line(invoice: Invoice, number: int, name: str, line: Any, amount: int) -> Any:  # noqa: ANN401
    from drafthorse.models.tradelines import LineItem

    item = LineItem()
    item.document.line_id = str(number)
    item.product.name = name
    rate = invoice.tax_basis_points
    price = Decimal(line.unit_micros * 10_000 * _PRICED) / Decimal((10_000 + rate) * 1_000_000)
    item.agreement.net.amount = price.quantize(Decimal("1.000000"))
    item.agreement.net.basis_quantity = (Decimal(_PRICED), _PIECES)
    item.delivery.billed_quantity = (Decimal(line.queries), _PIECES)
    _set_tax(item.settlement.trade_tax, invoice)
    item.settlement.monetary_summation.total_amount = _decimal(amount)
    return item


def _allowance(invoice: Invoice, name: str, amount: int) -> Any:  # noqa: ANN401
    from drafthorse.models.accounting import CategoryTradeTax, TradeAllowanceCharge

    found = TradeAllowanceCharge()
    found.indicator = amount > 0
    found.actual_amount = _decimal(abs(amount))
    found.reason = name
    tax = CategoryTradeTax()
    _set_tax(tax, invoice)
    found.trade_tax.add(tax)
    return found


def _add_tax(settlement: Any, invoice: Invoice, net: int) -> None:  # noqa: ANN401
    from drafthorse.models.accounting import ApplicableTradeTax

    tax = ApplicableTradeTax()
    _set_tax(tax, invoice)
    tax.calculated_amount, tax.basis_amount = _decimal(invoice.tax_micros), _decimal(net)
    if reason := _REASONS.get(_category(invoice)):
        tax.exemption_reason = reason
    settlement.trade_tax.add(tax)


def _set_tax(tax: Any, invoice: Invoice) -> None:  # noqa: ANN401
    tax.type_code, tax.category_code = _VAT, _category(invoice)
    tax.rate_applicable_percent = Decimal(invoice.tax_basis_points) / 100


def _category(invoice: Invoice) -> str:
    found = _CATEGORIES[invoice.buyer.taxed]
    return "E" if found == "S" and not invoice.tax_basis_points else found


def _decimal(micros: int) -> Decimal:
    return (Decimal(micros) / 1_000_000).quantize(Decimal("1.00"))
