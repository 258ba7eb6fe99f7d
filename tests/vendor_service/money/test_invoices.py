"""Invoices have numbers without a gap, and say what is to be paid; money has a currency."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader
from sqlalchemy import text
from sqlalchemy.orm import Session

from shared.billing import Invoice, payable_micros
from tests.vendor_service.books import Books, on_sqlite
from vendor_service.clock import DAY
from vendor_service.database.session import Database
from vendor_service.database.view import View
from vendor_service.errors import APIError, OperatorError, UsageError
from vendor_service.money import currency, invoices, payments
from vendor_service.money.invoice_formats import as_html, as_pdf, as_text
from vendor_service.money.usage import account_status


def name_currency(books: Books, code: str) -> None:
    with books.database.write() as session:
        currency.name(session, code)


def test_invoices_of_all_accounts_are_numbered_without_a_gap_whoever_issues_them(books: Books) -> None:
    """Through two databases on one file, as two processes would have; each is asked for three times."""
    orders = [books.open() for _ in range(4)]
    for _ in range(2):
        for order in orders:
            books.buy(order)
        books.clock.now += 31 * DAY
    months = ("2026-11", "2026-12")
    books.clock.now += 28 * DAY

    def fail(_: Session, _invoice: Invoice) -> None:
        raise ZeroDivisionError

    with (
        closing(Database(books.database.engine.url.render_as_string())) as twin,
        ThreadPoolExecutor(8) as pool,
    ):
        databases = (books.database, twin)

        def issue(number: int) -> int | None:
            order, month = orders[number % 4], months[number // 4 % 2]
            arguments = (databases[number % 2], order.account_id, month, books.clock())
            with suppress(ZeroDivisionError):  # what fails before it is committed takes no number
                invoices.issue(*arguments, on_final=fail)
            return invoices.issue(*arguments).number

        issued = list(pool.map(issue, range(24)))
    assert sorted(issued[:8]) == list(range(1, 9))  # type: ignore[type-var]
    assert issued[8:] == issued[:8] * 2
    for order in orders:
        books.check(order)
    books.tamper("UPDATE books_head SET invoices_issued = 9")
    assert "8 numbered invoices" in str(books.problem(orders[0]))


@on_sqlite
def test_a_currency_is_one_of_iso_4217_and_stays_once_money_has_moved(books: Books) -> None:
    with books.database.read() as session:
        assert currency.current(session) is None
    for code in ("EURO", "eur", "XXX", ""):
        with pytest.raises(UsageError, match="ISO 4217"):
            name_currency(books, code)
    name_currency(books, "USD")
    order = books.open()
    name_currency(books, "EUR")
    books.buy(order)
    name_currency(books, "EUR")
    with pytest.raises(OperatorError, match="these books are in EUR"):
        name_currency(books, "USD")
    with books.database.read() as session:
        assert account_status(session, View.whole(order.account_id), books.clock()).currency == "EUR"
        assert session.scalar(text("SELECT count(*) FROM books_head")) == 1


def test_books_without_a_currency_may_name_it_later(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now += 31 * DAY
    assert books.invoice(order).currency is None
    name_currency(books, "CHF")
    assert books.invoice(order).currency is None
    books.check(order)


@on_sqlite
def test_numbers_are_in_the_order_of_months_and_empty_months_have_none(
    books: Books,
) -> None:
    first, second = books.open(), books.open()
    books.buy(first)
    books.buy(second)
    books.clock.now += 31 * DAY
    books.buy(second)
    books.clock.now += 62 * DAY
    assert books.invoice(second, "2026-12").number == 3  # November's are issued before it
    assert (books.invoice(first).number, books.invoice(second).number) == (1, 2)
    assert books.invoice(first, "2026-12").number is None
    with pytest.raises(APIError, match="was opened in 2026-11"):
        books.invoice(first, "2026-10")
    with pytest.raises(UsageError, match="not over"):
        invoices.close(books.database, "2027-02", books.clock())
    books.check(first)
    books.check(second)


@on_sqlite
def test_the_vendor_issues_the_invoices_of_months_that_are_over_once(books: Books) -> None:
    orders = [books.open() for _ in range(3)]
    for order in orders:
        books.buy(order)
    months = invoices.MonthsEnd(books.database, books.clock, books.watch)
    months.issue_due()
    books.clock.now += 31 * DAY
    months.issue_due()
    months.issue_due()
    with books.database.read() as session:
        assert [each.number for each in invoices.finals_of(session, "2026-11")] == [1, 2, 3]


@on_sqlite
def test_an_invoice_says_what_is_to_be_paid_and_why_it_was_adjusted(books: Books) -> None:
    name_currency(books, "EUR")
    order, prepaid = books.open(), books.open(credit_micros=10**6)
    books.buy(prepaid)
    books.buy(order, images=123_457)
    with books.locked(order) as (session, account):
        payments.adjust(session, account, 44, "outage of 14 November", books.clock())
    draft = as_text(books.invoice(order))
    assert "Amount to pay" not in draft
    books.clock.now += 31 * DAY
    issued = books.invoice(order)
    assert (issued.due_micros, issued.carried_micros) == (12_340_000, 5_656)
    pdf = " ".join(page.extract_text() for page in PdfReader(BytesIO(as_pdf(issued))).pages)
    for shown in (as_text(issued), as_html(issued), pdf):
        assert "Amount to pay: 12.34 EUR" in shown
        assert "0.005656" in shown
        assert "adjustment: outage of 14 November" in shown
        assert "0.0001" in shown
    assert "Nothing to pay" in as_text(books.invoice(prepaid))
    books.check(order)


@given(st.lists(st.integers(0, 10**12), max_size=40), st.sampled_from(["EUR", "JPY", "BHD", "CLF", None]))
def test_whoever_pays_what_invoices_ask_for_pays_all_but_the_last_rest(months: list[int], code: str) -> None:
    unit = payable_micros(10**7, code) and next(
        10**digits for digits in range(7) if payable_micros(10**digits, code)
    )
    balance = paid = 0
    for charged in months:
        balance += charged
        due = payable_micros(balance, code)
        assert due % unit == 0
        assert 0 <= balance - due < unit
        balance -= due
        paid += due
    assert paid == sum(months) // unit * unit
    assert payable_micros(-5, code) == 0
