"""Accounts that several open at once."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.postgres import Postgres
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, opened_books
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.acts import accounts, keys
from vendor_service.acts.act import Act
from vendor_service.errors import APIError, OperatorError
from vendor_service.money import invoices


def test_who_opens_an_account_that_another_is_opening_is_told_that_it_is_there(postgres: Postgres) -> None:
    url = postgres.create_database()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"

    def open_acme(books: Books) -> None:
        with books.database.write() as session:
            open_account(session, "acme", Terms(), books.clock)

    with (
        opened_books(url) as books,
        psycopg.connect(url, autocommit=True) as looking,
        ThreadPoolExecutor(1) as pool,
    ):
        with books.database.write() as session:
            open_account(session, "acme", Terms(), books.clock)
            other = pool.submit(open_acme, books)
            wait_until(lambda: looking.execute(waiting).fetchone() is not None, 20)
        with pytest.raises(OperatorError, match="there is an account 'acme' already"):
            other.result(20)


def test_what_was_used_counts_in_another_period_and_no_quota_is_exceeded(books: Books) -> None:
    order = books.open(quota=5)
    name = books.account(order).name
    books.buy(order, images=4)
    books.clock.advance(40 * 86_400)
    books.buy(order, images=3)

    def change(period: str) -> int:
        with books.database.write() as session:
            act = Act(session, "os:test", books.clock)
            return accounts.change(act, name, {"quota_period": period}).queries_used

    assert change("total") == 7
    books.check(order, limits=False)
    with pytest.raises(APIError, match="quota"):
        books.admit(order)
    assert change("month") == 3
    books.buy(order, images=2)
    with pytest.raises(APIError, match="quota"):
        books.admit(order)
    books.check(order)


def test_an_account_that_is_renamed_keeps_its_books_and_one_that_is_closed_stays_so(books: Books) -> None:
    order = books.open()
    name = books.account(order).name
    books.buy(order)
    books.clock.advance(40 * 86_400)
    month = "2026-11"
    issued = invoices.issue(books.database, order.account_id, month, books.clock())
    with books.database.write() as session:
        accounts.rename(Act(session, "os:test", books.clock), name, "renamed")
    books.check(order)
    assert invoices.issue(books.database, order.account_id, month, books.clock()) == issued
    books.buy(order)
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        assert accounts.close(act, "renamed").status == "closed"
        assert all(each.revoked_at for each in keys.list_keys(act, "renamed").data)
        with pytest.raises(OperatorError, match="closed, for good"):
            accounts.resume(act, "renamed")
    with pytest.raises(APIError, match="suspended"):
        books.admit(order)
    books.check(order)
