"""Spending by day and group, the search of a ledger, and refusals: on each database, beside the entries."""

import asyncio
from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.clock import DAY, HOUR, to_datetime
from vendor_service.database.tables import LedgerEntry
from vendor_service.database.view import View
from vendor_service.money import entry_search, payments, prices, spending
from vendor_service.money.entry_search import EntryFilter
from vendor_service.money.orders import Order
from vendor_service.money.refusals import RefusalCounts, refused_since
from vendor_service.money.spending import Spent
from vendor_service.run.chores import Chore
from vendor_service.terms import MAX_NUMBER


@pytest.fixture
def history(books: Books) -> tuple[Order, str]:
    """Charges of two keys over three days, with a top-up, a refund and an adjustment; and the second key."""
    order = books.open(credit_micros=10**6)
    with books.locked(order) as (session, account):
        prices.publish(session, "another", {"image": 100, "text": 20}, books.clock())
        other = issue_key(session, account, KeyTerms("other"), books.clock).key_id
    for day in range(3):
        for number in range(3):
            books.buy(order, images=1 + number, texts=day)
            books.clock.advance(2 * HOUR / 1e6)
        books.buy(order, images=0, texts=1, key_id=other, model="another", model_fingerprint="fp_2")
        books.clock.advance((DAY - 6 * HOUR) / 1e6)
    with books.locked(order) as (session, account):
        payments.refund(session, account, 2, books.clock())
        payments.adjust(session, account, -7, "a mistake", books.clock())
    books.buy(books.open())
    return order, other


def days(books: Books, before: int = 4) -> tuple[date, date]:
    today = to_datetime(books.clock()).date()
    return today - timedelta(days=before), today


def test_spending_is_what_the_entries_add_up_to(books: Books, history: tuple[Order, str]) -> None:
    order, other = history
    entries = books.entries(order)
    with books.database.read() as session:
        by_day = spending.by_day(session, View.whole(order.account_id), *days(books))
        by_key = spending.by_group(session, View.whole(order.account_id), "key", *days(books))
        by_model = spending.by_group(session, View.whole(order.account_id), "model", *days(books))
        by_account = spending.by_group(session, None, "account", *days(books))
        of_all = spending.by_day(session, None, *days(books))
    charges = [each for each in entries if each.kind == "charge"]
    assert [each.group for each in by_day] == [f"{days(books)[0] + timedelta(days=n)}" for n in range(5)]
    for spent in by_day:
        mine = [each for each in charges if f"{to_datetime(each.created_at):%Y-%m-%d}" == spent.group]
        assert (spent.requests, spent.queries, spent.charged_micros) == (
            len(mine),
            sum(sum(each.counts.values()) for each in mine),
            -sum(each.amount_micros for each in mine),
        )  # fmt: skip
    assert (by_day[-1].refunded_micros, by_day[-1].adjusted_micros) == (-entries[1].amount_micros, -7)
    top_up = entries[0].amount_micros
    assert sum(each.net_micros for each in by_day) == top_up - sum(each.amount_micros for each in entries)
    assert [each.group for each in by_key] == [order.key_id, other]
    assert by_key[1] == Spent(other, 3, 3, 60)
    assert [each.group for each in by_model] == ["icon-clip", "another"]
    assert by_account[0].group == books.account(order).name
    assert sum(each.charged_micros for each in of_all) == sum(each.charged_micros for each in by_account)
    assert len(by_account) == 2


def test_spending_by_project_is_by_that_of_the_key_and_the_rest_is_the_default_ones(
    books: Books, history: tuple[Order, str]
) -> None:
    order, _ = history
    search = books.open_project(order, name="search")
    books.buy(search, images=2)
    with books.database.read() as session:
        by_project = spending.by_group(session, View.whole(order.account_id), "project", *days(books))
        (whole,) = spending.by_group(session, View.whole(order.account_id), "account", *days(books))
    assert {each.group: each.requests for each in by_project} == {"default": 12, "search": 1}
    assert by_project[1].charged_micros == 200
    assert sum(each.charged_micros for each in by_project) == whole.charged_micros


@on_sqlite
def test_spending_ends_with_the_last_day(books: Books) -> None:
    order = books.open()
    today = to_datetime(books.clock()).date()
    books.buy(order)
    books.clock.now += DAY - books.clock.now % DAY
    books.buy(order, images=2)
    with books.database.read() as session:
        (spent,) = spending.by_group(session, View.whole(order.account_id), "key", today, today)
        both = spending.by_day(session, View.whole(order.account_id), today, today + timedelta(days=1))
    assert (spent.requests, spent.charged_micros) == (1, 100)
    assert [each.charged_micros for each in both] == [100, 200]


@pytest.mark.parametrize("limit", [3, 100])
def test_a_search_finds_what_a_look_through_all_entries_finds(
    books: Books, history: tuple[Order, str], limit: int
) -> None:
    order, other = history
    entries = books.entries(order)
    first_day = to_datetime(entries[0].created_at).date()
    cases: list[tuple[EntryFilter, Callable[[LedgerEntry], bool]]] = [
        (EntryFilter(), lambda _: True),
        (EntryFilter(kind="charge"), lambda each: each.kind == "charge"),
        (EntryFilter(kind="payment"), lambda _: False),
        (EntryFilter(key_id=other), lambda each: each.key_id == other),
        (EntryFilter(kind="charge", model="icon-clip"), lambda each: each.model == "icon-clip"),
        (EntryFilter(last=first_day), lambda each: to_datetime(each.created_at).date() <= first_day),
        (EntryFilter(first=first_day + timedelta(days=1), key_id=order.key_id),
         lambda each: each.key_id == order.key_id and to_datetime(each.created_at).date() > first_day),
    ]  # fmt: skip
    for wanted, is_wanted in cases:
        expected = [each.seq for each in reversed(entries) if is_wanted(each)]
        found: list[LedgerEntry] = []
        with books.database.read() as session:
            before = MAX_NUMBER
            while page := entry_search.search(session, View.whole(order.account_id), wanted, before, limit):
                assert len(page) <= limit
                found += page
                before = page[-1].seq
            counted = entry_search.count(session, View.whole(order.account_id), wanted)
        assert [each.seq for each in found] == expected
        assert (counted.entries, counted.amount_micros) == (
            len(expected), sum(each.amount_micros for each in found)
        )  # fmt: skip


def test_refusals_are_counted_over_processes_and_forgotten_after_a_while(books: Books) -> None:
    counts = [RefusalCounts(books.database, books.clock) for _ in range(2)]
    for each in counts:
        each.note("acct_1", "", "rate_limited")
        each.note("acct_1", "", "rate_limited")
        each.note("acct_2", "", "invalid_image")
        each.write()
        each.write()
    with books.database.read() as session:
        (found,) = refused_since(session, View.whole("acct_1"), books.clock())
        assert (found.code, found.requests) == ("rate_limited", 4)
        assert not refused_since(session, View.whole("acct_1"), books.clock() + HOUR)
    books.clock.advance(91 * DAY / 1e6)
    counts[0].note("acct_1", "", "not_found")
    counts[0].write()
    with books.database.read() as session:
        assert [each.code for each in refused_since(session, View.whole("acct_1"), 0)] == ["not_found"]
        assert [each.code for each in refused_since(session, View.whole("acct_2"), 0)] == ["invalid_image"]


@on_sqlite
def test_refusals_are_not_forgotten_by_a_clock_that_is_wrong(books: Books) -> None:
    counts = RefusalCounts(books.database, books.clock, books.watch)
    counts.note("acct_1", "", "rate_limited")
    counts.write()
    for days in (900, -900):
        books.clock.step(days * DAY / 1e6)
        counts.note("acct_1", "", "not_ready")
        counts.write()
    with books.database.read() as session:
        assert {each.code for each in refused_since(session, View.whole("acct_1"), 0)} == {
            "rate_limited",
            "not_ready",
        }


def test_what_cannot_be_written_is_written_later(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = RefusalCounts(books.database, books.clock)
    counts.note("acct_1", "", "overloaded")
    with monkeypatch.context() as patch:
        patch.setattr(books.database, "write", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            counts.write()
    counts.write()
    with books.database.read() as session:
        assert [each.requests for each in refused_since(session, View.whole("acct_1"), 0)] == [1]


def test_an_error_that_nobody_foresaw_ends_no_writing_of_refusals(
    books: Books, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    counts = RefusalCounts(books.database, books.clock)
    counts.note("acct_1", "", "overloaded")
    write, failures = books.database.write, iter(range(2))

    def failing() -> Any:
        return write() if next(failures, None) is None else 1 / 0

    def written() -> bool:
        with books.database.read() as session:
            return bool(refused_since(session, View.whole("acct_1"), 0))

    async def work() -> None:
        writing = asyncio.create_task(Chore("writing", counts.write, 0.01).repeat())
        async with asyncio.timeout(20):
            while not (writing.done() or written()):
                await asyncio.sleep(0.01)
        writing.cancel()

    monkeypatch.setattr(books.database, "write", failing)
    asyncio.run(work())
    assert written()
    assert caplog.text.count("ZeroDivisionError") == 2
