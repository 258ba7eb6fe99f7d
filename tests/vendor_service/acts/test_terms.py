"""What is agreed with an account, and the limits of its projects, changed by one act for all fields."""

from collections.abc import Mapping

import pytest

from tests.vendor_service.books import Books
from vendor_service.acts import accounts, projects
from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.errors import OperatorError
from vendor_service.money.orders import Order


def agree(books: Books, order: Order, changes: Mapping[str, int | str | None]) -> object:
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        return accounts.set_terms(act, books.account(order).name, changes)


def actions(books: Books) -> list[str]:
    with books.database.read() as session:
        return [each.action for each in log.entries(session, after=0, limit=100)]


def test_each_field_that_differs_is_an_act_and_no_other_is(books: Books) -> None:
    order = books.open(quota=5, queries_per_second=7)
    status = agree(books, order, {"quota": 5, "plan": "standard", "status": "active"})
    assert actions(books) == []
    assert status == agree(books, order, {})
    agree(books, order, {"status": "suspended", "spend_limit_micros": 9, "quota": None})
    account = books.account(order)
    assert (account.quota, account.spend_limit_micros, account.status) == (None, 9, "suspended")
    assert account.queries_per_second == 7  # it was not named
    assert actions(books) == ["account.set_quota", "account.set_spend_limit", "account.suspend"]
    agree(books, order, {"queries_per_second": 8, "coverage_limit": 3, "status": "active"})
    account = books.account(order)
    assert (account.queries_per_second, account.coverage_limit, account.status) == (8, 3, "active")


@pytest.mark.parametrize("wrong", [{"plan": "nonesuch"}, {"coverage_limit": -1}], ids=str)
def test_all_fields_are_changed_or_none(books: Books, wrong: dict[str, int | str | None]) -> None:
    order = books.open(quota=5)
    with pytest.raises(OperatorError):
        agree(books, order, {"quota": 6} | wrong)
    assert books.account(order).quota == 5
    assert actions(books) == []


def test_a_project_is_changed_alike(books: Books) -> None:
    order = books.open()
    books.open_project(order, name="search")
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        changes = {"quota": 4, "spend_limit_micros": None, "queries_per_second": 2}
        changed = projects.set_terms(act, books.account(order).name, "search", changes)
    assert (changed.quota, changed.spend_limit_micros) == (4, None)
    assert changed.rate_limit is not None
    assert actions(books) == ["project.set_quota", "project.set_rate_limit"]
