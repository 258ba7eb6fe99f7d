"""One verification of the ledger at a time, whoever asks for it."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import text

from tests.vendor_service.books import Books, on_sqlite
from tests.vendor_service.console.visits import Visit
from tests.vendor_service.http.local_admin import LocalAdmin
from tests.vendor_service.local_vendor import error_code
from tests.vendor_service.money.test_totals import statements
from vendor_service.acts.act import OperatorScope
from vendor_service.acts.verification import LedgerVerifier
from vendor_service.errors import APIError, UnknownName
from vendor_service.money.verification import Verification, verify


def test_progress_counts_the_entries_of_all_accounts(books: Books) -> None:
    verifier, told = LedgerVerifier(books.database), list[tuple[str, int, int]]()
    for orders in (1, 2):
        order = books.open()
        for _ in range(orders):
            books.buy(order)
    found = verifier.verify(progress=lambda *each: told.append(each))
    assert [(each.entries, each.problem) for each in found] == [(1, None), (2, None)]
    assert {entries for _, entries, _ in told} == {sum(more for *_, more in told)} == {3}
    assert {name for name, _, _ in told} == {each.account for each in found}
    assert verifier.verify(found[1].account) == found[1:]


def test_more_accounts_take_no_more_passes_over_all_holds_and_invoices(books: Books) -> None:
    passes = []
    for _ in range(2):
        for _ in range(4):
            books.buy(books.open())
        with statements(books) as seen:
            assert not any(each.problem for each in LedgerVerifier(books.database).verify())
        passes.append(
            [statement for statement, _ in seen if statement.startswith("SELECT") and "count(" in statement]
        )
    assert [sum("FROM holds" in each for each in some) for some in passes] == [1, 1]
    assert [sum("FROM final_invoices" in each for each in some) for some in passes] == [1, 1]


def test_an_account_that_buys_while_others_are_verified_is_counted_anew(books: Books) -> None:
    orders = [books.open(), books.open()]
    books.buy(orders[0])

    def buy(name: str, *_: object) -> None:
        if name == books.account(orders[0]).name:
            books.buy(orders[1])

    found = LedgerVerifier(books.database).verify(progress=buy)
    assert [each.problem for each in found] == [None, None]
    assert found[1].entries > 0
    with books.database.write() as session:
        session.execute(text("UPDATE holds SET state = 'voided'"))
    assert all("settled holds" in str(each.problem) for each in LedgerVerifier(books.database).verify())


@on_sqlite
def test_a_second_verification_is_refused_while_one_goes_on(books: Books) -> None:
    verifier, refused = LedgerVerifier(books.database), list[str]()
    books.open()

    def ask_again(*_: object) -> None:
        with pytest.raises(APIError) as caught:
            verifier.verify()
        refused.append(caught.value.code)

    verifier.verify(progress=ask_again)
    assert set(refused) == {"overloaded"}
    with pytest.raises(UnknownName):
        verifier.verify("nobody")
    assert len(verifier.verify()) == 1  # one that failed keeps no other out


@on_sqlite
def test_the_routes_and_the_console_keep_each_other_out(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    books.open()
    begun, go_on = threading.Event(), threading.Event()

    def held(*given: Any) -> Verification:
        begun.set()
        assert go_on.wait(20)
        return verify(*given)

    monkeypatch.setattr("vendor_service.acts.verification.verify", held)
    with LocalAdmin(books) as admin, ThreadPoolExecutor(1) as another:
        visit = Visit(admin.http, "/operator")
        visit.sign_in(token=admin.tokens[OperatorScope.READ])
        first = another.submit(visit.ask, "/money/verify")
        try:
            assert begun.wait(20)
            by_route = admin.ask("GET", "ledger/verification")
        finally:
            go_on.set()
        assert (by_route.status_code, error_code(by_route)) == (503, "overloaded")
        assert int(by_route.headers["retry-after"]) > 0
        assert first.result(20).status_code == 200

        begun.clear()
        go_on.clear()
        first = another.submit(admin.ask, "GET", "ledger/verification")
        try:
            assert begun.wait(20)
            by_page = visit.ask("/money/verify")
        finally:
            go_on.set()
        assert (by_page.status_code, first.result(20).status_code) == (503, 200)
