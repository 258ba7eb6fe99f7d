"""What is agreed with an account, and the limits of its projects, changed by one act for all fields."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.vendor_service.books import Books, on_sqlite
from vendor_service.acts import accounts, projects
from vendor_service.acts.act import Act
from vendor_service.audit import log
from vendor_service.audit.log import Facts
from vendor_service.errors import OperatorError
from vendor_service.money.orders import Order


def agree(books: Books, order: Order, changes: Mapping[str, int | str | None], **more: Any) -> object:
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        return accounts.change(act, books.account(order).name, changes, **more)


def recorded(books: Books) -> list[tuple[str, Facts | None, Facts | None]]:
    with books.database.read() as session:
        return [(each.action, each.before, each.after) for each in log.entries(session, limit=100)]


def test_a_change_is_recorded_with_the_fields_that_differ_and_no_other(books: Books) -> None:
    order = books.open(quota=5, queries_per_second=7)
    status = agree(books, order, {"quota": 5, "plan": "standard"}, status="active")
    assert recorded(books) == []
    assert status == agree(books, order, {"quota": 5})
    agree(books, order, {"spend_limit_micros": 9, "quota": None, "plan": "standard"}, status="suspended")
    account = books.account(order)
    assert (account.quota, account.spend_limit_micros, account.status) == (None, 9, "suspended")
    assert account.queries_per_second == 7  # it was not named
    assert recorded(books) == [
        ("account.set", {"quota": 5, "spend_limit_micros": None}, {"quota": None, "spend_limit_micros": 9}),
        ("account.suspend", {"status": "active"}, {"status": "suspended"}),
    ]
    agree(books, order, {"queries_per_second": 8, "coverage_limit": 3}, status="active")
    account = books.account(order)
    assert (account.queries_per_second, account.coverage_limit, account.status) == (8, 3, "active")


@pytest.mark.parametrize("wrong", [{"plan": "nonesuch"}, {"coverage_limit": -1}], ids=str)
@on_sqlite
def test_all_fields_are_changed_or_none(books: Books, wrong: dict[str, int | str | None]) -> None:
    order = books.open(quota=5)
    with pytest.raises(OperatorError):
        agree(books, order, {"quota": 6} | wrong)
    assert books.account(order).quota == 5
    assert recorded(books) == []


@on_sqlite
def test_a_project_is_changed_alike(books: Books) -> None:
    order = books.open()
    books.open_project(order, name="search")
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        changes = {"quota": 4, "spend_limit_micros": None, "queries_per_second": 2}
        changed = projects.change(act, books.account(order).name, "search", changes)
    assert (changed.quota, changed.spend_limit_micros) == (4, None)
    assert changed.rate_limit is not None
    was, now = {"quota": None, "queries_per_second": None}, {"quota": 4, "queries_per_second": 2}
    project = {"project": "search"}
    assert recorded(books) == [("project.set", project | was, project | now)]
