"""Credit notes: a refund of an invoiced charge is a document of its own, counted once, exact to the cent."""

from io import BytesIO
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pypdf import PdfReader
from sqlalchemy import select, text
from sqlalchemy.exc import DatabaseError

from shared.billing import CreditNote, Invoice, smallest_unit
from tests.vendor_service.books import Books, on_sqlite, opened_books
from tests.vendor_service.money.test_einvoice import BUYER, SELLER, check
from vendor_service.acts import invoicing
from vendor_service.acts import money as acts
from vendor_service.acts.act import Act, ActContext
from vendor_service.acts.declaration import ACTS
from vendor_service.clock import DAY, to_datetime
from vendor_service.console.customers.sentences import of_event
from vendor_service.database.tables import WebhookEvent
from vendor_service.money import credit_notes, currency, invoices, parties, payments
from vendor_service.money.invoice_formats import as_csv, as_html, as_pdf, as_text
from vendor_service.money.orders import Order
from vendor_service.webhooks.events import EventKind


def refund(books: Books, order: Order, seq: int, micros: int | None = None) -> int:
    with books.locked(order) as (session, account):
        return payments.refund(session, account, seq, books.clock(), micros).seq


def notes_of(books: Books, order: Order) -> list[CreditNote]:
    with books.database.read() as session:
        return credit_notes.of_account(session, order.account_id)


def name_everything(books: Books, order: Order) -> None:
    with books.database.write() as session:
        currency.name(session, "EUR")
        parties.set_seller(session, SELLER)
    with books.locked(order) as (_, account):
        parties.set_buyer(account, BUYER)


def test_a_refund_of_an_invoiced_charge_is_a_numbered_document_and_on_no_invoice(books: Books) -> None:
    order, other = books.open(), books.open(credit_micros=10**7)
    name_everything(books, order)
    books.buy(order, images=50_000)
    books.buy(order, images=2)
    books.buy(other, images=3)
    refund(books, order, 2)  # in its own month: on the invoice
    books.clock.now += 31 * DAY
    november, _ = books.invoice(order), books.invoice(other)
    assert (november.refunds_micros, november.credited_micros, notes_of(books, order)) == (200, 0, [])
    with books.database.write() as session:
        parties.set_seller(session, {"tax_basis_points": 700})  # the note has the tax of its invoice
    refund(books, order, 1, 1_190_000)
    refund(books, other, 2)  # behind its first credit
    entry = refund(books, order, 1, 7_001)
    first, second = notes_of(books, order)
    assert [each.number for each in (first, *notes_of(books, other), second)] == [1, 2, 3]
    assert (first.name, first.month, first.invoice_number, first.corrects_seq) == ("CN-1", "2026-11", 1, 1)
    assert (first.billed_micros, first.tax_micros, second.billed_micros) == (1_190_000, 190_000, 0)
    assert (second.seq, second.brought_micros) == (entry, 0)
    books.buy(order, images=1)
    books.clock.now += 31 * DAY
    assert books.invoice(order) == november
    december = books.invoice(order, "2026-12")
    assert (december.refunds_micros, december.total_micros) == (0, 100)
    assert december.credited_micros == 1_197_001
    assert december.balance_due_micros == 5_000_000 + 100 - 1_197_001
    assert "credit notes: 1.197001" in as_text(december)
    pdf = " ".join(page.extract_text() for page in PdfReader(BytesIO(as_pdf(first))).pages)
    for shown in (as_text(first), as_html(first), pdf):
        for said in ("Credit note CN-1 of account-0 for invoice 1", "Vision GmbH", "PO 17", "amount (EUR)",
                     "Refund of charge 1", "1.190000", "of which 19% tax", "0.19", str(first.issued_on),
                     f"Ledger entry {first.seq}"):  # fmt: skip
            assert said in shown, said
    assert as_pdf(first) == as_pdf(first)
    assert as_csv(first).splitlines()[-1].endswith("credit note,icon-clip,,,,-1190000,EUR")
    xml = check(first).decode()
    for said in (">381<", ">CN-1<", "InvoiceReferencedDocument", "Set off against the balance"):
        assert said in xml, said
    with books.database.read() as session:
        told = session.scalars(
            select(WebhookEvent.content).where(WebhookEvent.kind == EventKind.CREDIT_NOTE_ISSUED)
        ).all()
    assert len(told) == 3
    assert '"name":"CN-3"' in "".join(told)
    for each in (order, other):
        books.check(each)


@on_sqlite
def test_it_is_said_before_and_listed_by_the_act_and_the_command_finds_it(books: Books) -> None:
    order = books.open()
    name = books.account(order).name
    books.buy(order, images=5)
    declared = ACTS["money.refund"]
    given = {"account": name, "seq": 1, "micros": None, "reference": None}
    with books.database.read() as session:
        act = Act(session, "os:test", books.clock)
        assert "The invoice of this month is 0.0005 less." in declared.facts(act, given)
    books.clock.now += 31 * DAY
    with books.database.read() as session:
        act = Act(session, "os:test", books.clock)
        assert "A credit note of 0.0005 is issued with the invoice of 2026-11." in declared.facts(act, given)
    books.invoice(order)
    context = ActContext(books.database, books.clock, actor="os:test")
    with context.write() as act:
        assert "A credit note of 0.0005 is issued at once, for invoice 1." in declared.facts(act, given)
        acts.refund(act, name, 1, None, "ticket")
    with context.write() as act:
        acts.refund(act, name, 1, None, "ticket")  # repeated, it gives back nothing
        assert [each.name for each in invoicing.list_credit_notes(act, name)] == ["CN-1"]
    data = {"name": "CN-1", "invoice_number": 1, "total_micros": 500, "currency": None}
    assert of_event(EventKind.CREDIT_NOTE_ISSUED, data, {}) == (
        "Credit note CN-1 of invoice 1 was issued: 0.0005."
    )
    with books.database.read() as session:
        assert [each.account for each in credit_notes.issued_between(session, 0, books.clock() + 1)] == [name]


@on_sqlite
def test_a_month_with_a_credit_note_alone_takes_no_invoice(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now += 31 * DAY
    refund(books, order, 1, 60)  # before the invoice of its charge was issued
    assert notes_of(books, order) == []
    books.clock.now += 31 * DAY
    invoices.close(books.database, "2026-12", books.clock())
    assert books.invoice(order, "2026-12").number is None
    assert [(each.total_micros, each.invoice_number) for each in notes_of(books, order)] == [(60, 1)]
    with books.database.read() as session:
        assert invoices.count_unissued(session, "2026-12") == 0
    books.check(order)


def test_credit_notes_refuse_every_change_and_verification_finds_what_is_wrong(books: Books) -> None:
    order = books.open()
    books.buy(order, images=5)
    books.clock.now += 31 * DAY
    books.invoice(order)
    refund(books, order, 1, 300)
    for change in ("UPDATE credit_notes SET content = ''", "DELETE FROM credit_notes"):
        with pytest.raises(DatabaseError, match="append-only"), books.database.write() as session:
            session.execute(text(change))
    books.check(order)
    books.tamper("UPDATE credit_notes SET content = replace(content, '300', '301')")
    assert "credit note 1 is not what" in str(books.problem(order))
    books.tamper("DELETE FROM credit_notes")
    assert "refund 2 is of an invoiced month, and has no credit note" in str(books.problem(order))
    books.tamper("UPDATE books_head SET credit_notes_issued = 7")
    books.tamper("DELETE FROM final_invoices")
    assert "numbered invoices" in str(books.problem(order))


@settings(max_examples=25)
@given(
    st.lists(
        st.tuples(st.sampled_from(["buy", "refund", "adjust", "month", "issue"]), st.integers(1, 40_000)),
        min_size=4,
        max_size=20,
    ),
    st.sampled_from(["EUR", None]),
)
def test_invoices_less_credit_notes_are_what_the_ledger_has(
    steps: list[tuple[str, int]], code: str | None
) -> None:
    """To the last millionth in totals, and in whole cents to less than one of each kind; nothing twice."""
    with TemporaryDirectory() as folder, opened_books(f"sqlite:///{folder}/books.db") as books:
        _add_up(books, steps, code)


def _add_up(books: Books, steps: list[tuple[str, int]], code: str | None) -> None:
    order = books.open()
    with books.database.write() as session:
        if code is not None:
            currency.name(session, code)
    began = f"{to_datetime(books.clock()):%Y-%m}"
    left: dict[int, int] = {}
    for what, size in (*steps, ("month", 0)):
        if what == "buy":
            books.buy(order, images=size)
            left[books.account(order).ledger_seq] = 100 * size
        elif what == "refund" and left:
            seq = sorted(left)[size % len(left)]
            part = min(left[seq], size)
            refund(books, order, seq, part)
            left[seq] -= part
            left = {each: micros for each, micros in left.items() if micros}
        elif what == "adjust":
            with books.locked(order) as (session, account):
                payments.adjust(session, account, size - 20_000 or 1, "why", books.clock())
        elif what == "month":
            books.clock.now += 31 * DAY
        elif what == "issue":
            books.invoice(order, began)
    end = f"{to_datetime(books.clock() - 31 * DAY):%Y-%m}"
    invoices.close(books.database, end, books.clock())
    with books.database.read() as session:
        issued = [
            Invoice.model_validate_json(each.content) for each in invoices.finals(session, order.account_id)
        ]
    noted = notes_of(books, order)
    ledger = -sum(each.amount_micros for each in books.entries(order))
    assert sum(each.total_micros for each in issued) - sum(each.total_micros for each in noted) == ledger
    seqs = [each.seq for each in noted]
    assert len(seqs) == len(set(seqs))
    billed = sum(each.billed_micros for each in issued) - sum(each.billed_micros for each in noted)
    assert abs(billed - ledger) < smallest_unit(code)
    books.check(order)


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 2500))
def test_the_amounts_of_a_credit_notes_xml_add_up_to_the_cent(brought: int, total: int, rate: int) -> None:
    check(
        CreditNote.model_validate({
            "number": 3, "currency": "EUR", "total_micros": total, "brought_micros": brought % 10_000,
            "seller": SELLER | {"tax_basis_points": rate}, "buyer": BUYER, "issued_on": "2026-12-03",
            "account": "acme", "month": "2026-11", "invoice_number": 1, "invoice_issued_on": "2026-12-01",
            "seq": 9, "entry_hash": "a", "corrects_seq": 2, "model": "icon-clip", "reference": None,
        })
    )  # fmt: skip
