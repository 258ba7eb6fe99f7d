"""Accounts that several open at once."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.support.postgres import Postgres
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, opened_books
from vendor_service.accounts.accounts import Terms, open_account
from vendor_service.errors import OperatorError


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
