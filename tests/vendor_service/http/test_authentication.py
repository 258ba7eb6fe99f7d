"""Authentication: when keys were last used is noted beside whoever has them locked."""

import time

import pytest

from shared.errors import ErrorCode
from shared.keys import NewSecret
from tests.support.postgres import Postgres
from tests.vendor_service.books import Books, laid_out, opened_books
from tests.vendor_service.database.test_writer import KEY, locked
from vendor_service.accounts.keys import KeyTerms, issue_key
from vendor_service.clock import SECOND
from vendor_service.database.tables import ApiKey
from vendor_service.errors import APIError
from vendor_service.http.authentication import Authentication


def issue(books: Books) -> NewSecret:
    with books.locked(books.open()) as (session, account):
        return issue_key(session, account, KeyTerms(), books.clock)


def last_used(books: Books, key: NewSecret) -> int | None:
    with books.database.read() as session:
        return session.get_one(ApiKey, key.key_id).last_used_at


def test_a_locked_key_is_not_waited_for_and_is_noted_the_next_time(postgres: Postgres) -> None:
    url = postgres.create_database(of=laid_out(postgres))
    with opened_books(url) as books:
        keys = sorted((issue(books) for _ in range(3)), key=lambda each: each.key_id)
        authentication = Authentication(books.database, books.clock)
        for each in keys:
            authentication.identify(each.api_key, None)
        at = books.clock()
        with locked(url, KEY, keys[1].key_id):
            began = time.monotonic()
            authentication.record_use()
            assert time.monotonic() - began < 10
            assert [last_used(books, each) for each in keys] == [at, None, at]
        authentication.identify(keys[0].api_key, None)
        books.clock.now += SECOND
        authentication.identify(keys[2].api_key, None)
        authentication.record_use()
        assert [last_used(books, each) for each in keys] == [at, at, at + SECOND]


def test_what_could_not_be_noted_is_noted_the_next_time_and_once(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = issue(books)
    authentication = Authentication(books.database, books.clock)
    authentication.identify(key.api_key, None)

    def away() -> None:
        raise APIError(ErrorCode.OVERLOADED, "the database is away")

    with monkeypatch.context() as patched:
        patched.setattr(books.database, "write", away)
        with pytest.raises(APIError):
            authentication.record_use()
    authentication.record_use()
    assert last_used(books, key) == books.clock()
    with books.database.write() as session:
        session.get_one(ApiKey, key.key_id).last_used_at = None
    authentication.record_use()
    assert last_used(books, key) is None
