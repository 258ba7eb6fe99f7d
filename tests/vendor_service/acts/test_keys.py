"""The keys that customers issue and rotate themselves: how many, and what it takes to count them."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event, insert

from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, on_postgres, on_sqlite, opened_books
from tests.vendor_service.database.test_writer import ACCOUNT, locked, waiting_for_locks
from tests.vendor_service.money.test_totals import statements
from vendor_service.accounts.keys import KeyTerms, secret_hash
from vendor_service.acts import keys
from vendor_service.acts.act import Act, Customer
from vendor_service.clock import DAY
from vendor_service.database.tables import ApiKey
from vendor_service.database.view import View
from vendor_service.errors import APIError
from vendor_service.money.orders import Order
from vendor_service.webhooks import events
from vendor_service.webhooks.events import EventKind


def customer(books: Books, order: Order) -> Customer:
    return Customer(books.account(order), None)


def issue(books: Books, order: Order, project: str | None = None) -> None:
    whose = customer(books, order)
    with books.database.write() as session:
        keys.issue(Act(session, "key:1", books.clock, customer=whose), whose.name, KeyTerms(project=project))


def rotate(books: Books, order: Order) -> None:
    whose = customer(books, order)
    with books.database.write() as session:
        keys.rotate(Act(session, "key:1", books.clock, customer=whose), order.key_id)


def had(books: Books, order: Order, count: int, *, revoked: bool) -> None:
    """Have an account have got so many keys just now."""
    now = books.clock()
    row = {"account_id": order.account_id, "secret_hash": "x", "label": "", "created_at": now}
    row["revoked_at"] = now if revoked else None
    with books.database.write() as session:
        session.execute(insert(ApiKey), [row | {"id": secrets.token_hex(8)} for _ in range(count)])


@contextmanager
def loads() -> Iterator[list[str]]:
    """The ids of the keys that are read whole."""
    ids: list[str] = []

    def note(key: ApiKey, _: object) -> None:
        ids.append(key.id)

    event.listen(ApiKey, "load", note)
    try:
        yield ids
    finally:
        event.remove(ApiKey, "load", note)


@on_sqlite
def test_keys_that_were_revoked_leave_room_and_are_not_read(books: Books) -> None:
    order = books.open()
    had(books, order, 1500, revoked=True)
    books.clock.now += DAY
    had(books, order, 998, revoked=False)
    books.clock.now += DAY
    with loads() as ids:
        issue(books, order)
    assert ids == []
    with pytest.raises(APIError, match="has 1000 keys; revoke one") as refused:
        issue(books, order)
    assert refused.value.code == "conflict"


def test_a_page_of_keys_is_found_without_a_look_at_all_of_them(tmp_path: Path) -> None:
    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books:
        order = books.open()
        with statements(books) as seen, books.database.read() as session:
            keys.page(session, View.whole(order.account_id), order.key_id, 10)
            for ended in (False, True):
                keys.newest(session, View.whole(order.account_id), order.key_id, 10, now=1, ended=ended)
        pages = [each for each in seen if "ORDER BY api_keys.created_at" in each[0]]
        assert len(pages) == 3
        with books.database.engine.connect() as connection:
            for statement, parameters in pages:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
                steps = [step.detail for step in plan]
                assert any("account_id=? AND created_at" in each for each in steps), steps
                assert "USE TEMP B-TREE FOR ORDER BY" not in steps


def test_a_project_gets_a_thousand_keys_a_day_revoked_ones_included(books: Books) -> None:
    order, other = books.open(), books.open()
    had(books, order, 998, revoked=True)
    issue(books, order)
    with pytest.raises(APIError, match="in 24 hours") as refused:
        issue(books, order)
    assert refused.value.code == "conflict"
    issue(books, other)
    books.open_project(order)
    issue(books, order, "search")
    books.clock.now += DAY
    issue(books, order)


@on_sqlite
def test_a_projects_keys_are_rotated_so_often_in_a_day(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_MOST_A_DAY", 3)
    order, other = books.open(), books.open()
    second, beside = books.another_key(order), books.open_project(order)
    with books.locked(order) as (session, account):  # what else is told does not count
        events.emit(session, EventKind.QUOTA, account, {}, books.clock())
    for each in (order, second, order):
        rotate(books, each)
    for each in (order, second):
        with pytest.raises(APIError, match="rotated 3 times in 24 hours; try again tomorrow") as refused:
            rotate(books, each)
        assert refused.value.code == "conflict"
    rotate(books, other)
    rotate(books, beside)
    with books.database.write() as session:  # operators may
        keys.rotate(Act(session, "os:test", books.clock), order.key_id, 0)
    books.clock.now += DAY
    rotate(books, order)


@on_postgres
def test_changes_of_a_key_by_operators_and_customers_wait_for_its_account_and_come_one_after_another(
    books: Books,
) -> None:
    order = books.open()
    whose = customer(books, order)

    def rotate_by(by: Customer | None) -> str:
        with books.database.write() as session:
            return keys.rotate(Act(session, "os:test", books.clock, customer=by), order.key_id, 60).api_key

    with ThreadPoolExecutor(2) as pool:
        with locked(books.url, ACCOUNT, order.account_id) as other:
            both = [pool.submit(rotate_by, by) for by in (None, whose)]
            wait_until(lambda: waiting_for_locks(other) == 2)
            assert not any(each.done() for each in both)
        made = {secret_hash(each.result(20)) for each in both}
    key = books.key(order)
    assert {key.secret_hash, key.former_hash} == made
