"""Clocks that step, or are wrong: noticed, told, and never a reason to date a charge into another year."""

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest

from shared.errors import ErrorCode
from tests.support.postgres import Postgres
from tests.vendor_service.books import HOLD_SECONDS, Books, on_postgres, on_sqlite, opened_books, renewed
from tests.vendor_service.clocks import FakeClock
from tests.vendor_service.console.visits import Visit, problem_of
from tests.vendor_service.local_vendor import LocalVendor, error_code
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.acts import accounts, invitations, invoicing, keys, money, operators, prices
from vendor_service.acts.act import Act, ActContext, Customer, OperatorScope
from vendor_service.clock import (
    DAY,
    SECOND,
    ClockWatch,
    from_datetime,
    next_month_start,
    system_clock,
    to_datetime,
)
from vendor_service.database.session import Database, server_time
from vendor_service.errors import APIError, OperatorError, WrongClock
from vendor_service.money import clock_check, payments
from vendor_service.money.admission import Admission
from vendor_service.money.clock_check import against_database, ask_database

CAT = {"text": "a photo of a cat"}
DECEMBER = from_datetime(datetime(2026, 12, 1))
YEARS_LATER = from_datetime(datetime(2038, 1, 19, 3, 14, 7))


@pytest.fixture
def sqlite_books(tmp_path: Path) -> Iterator[Books]:
    """A clock has nothing but the dates in the books to be held against."""
    with opened_books(f"sqlite:///{tmp_path / 'alone.db'}") as books:
        yield books


def not_ready(refused: pytest.ExceptionInfo[APIError]) -> bool:
    return refused.value.code == ErrorCode.NOT_READY and refused.value.retry_after is not None


@pytest.mark.parametrize("seconds", [301, -301, 11 * 365 * 86_400, -56 * 365 * 86_400])
def test_a_step_of_the_clock_stops_charging_until_it_is_set_right(
    books: Books, seconds: int, caplog: pytest.LogCaptureFixture
) -> None:
    order = books.open()
    books.buy(order)
    held = books.admit(order)
    books.clock.step(seconds)
    for _ in range(3):
        with pytest.raises(APIError) as refused:
            books.admit(order)
        assert not_ready(refused)
        with pytest.raises(APIError) as refused:
            books.admission.settle(order.account_id, held.request_id).result()
        assert not_ready(refused)
    assert [record.levelname for record in caplog.records].count("ERROR") == 1
    assert "was set" in caplog.text
    assert books.admission.void(order.account_id, held.request_id).result()
    books.clock.step(-seconds)
    books.buy(order)
    assert [entry.created_at for entry in books.entries(order)] == [books.clock()] * 2
    books.check(order)


@on_sqlite
def test_a_clock_that_runs_a_little_fast_or_is_set_by_seconds_has_not_stepped(books: Books) -> None:
    order = books.open()
    for _ in range(60):
        books.clock.advance(86_400)
        books.clock.step(40)
        books.buy(order)
    assert books.watch.fault is None
    books.check(order)


def test_a_clock_that_stepped_is_seen_from_outside_and_costs_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key()
        assert vendor.embed(key, CAT).status_code == vendor.http.get("/readyz").status_code == 200
        vendor.clock.step(12 * 365 * 86_400)
        refused = vendor.embed(key, CAT)
        assert (error_code(refused), refused.status_code) == ("not_ready", 503)
        assert int(refused.headers["retry-after"]) > 0
        assert error_code(vendor.http.get("/readyz")) == "not_ready"
        assert vendor.http.get("/livez").status_code == 200
        headers = {"authorization": f"Bearer {key}"}
        assert error_code(vendor.http.get("/v1/invoices/2026-11", headers=headers)) == "not_ready"
        vendor.clock.step(-12 * 365 * 86_400)
        assert vendor.embed(key, CAT).status_code == vendor.http.get("/readyz").status_code == 200
        account = vendor.account(key)
    assert (account.ledger_seq, account.queries_held) == (2, 0)
    assert "the clock was set forward" in caplog.text


@on_sqlite
def test_an_account_that_a_wrong_clock_dated_ahead_is_refused_until_it_is_repaired(
    books: Books, caplog: pytest.LogCaptureFixture
) -> None:
    """Two charges are dated 2038, by a process that nobody told; then the operator repairs."""
    order = books.open(quota=30, queries_per_second=5)
    for _ in range(4):
        books.buy(order)
    for images in (1, 2):
        books.misdate(order, YEARS_LATER, images=images)
    with caplog.at_level(logging.ERROR), pytest.raises(APIError) as refused:
        books.buy(order)
    assert not_ready(refused)
    assert f"vendor accounts repair {books.account(order).name}" in caplog.text
    with books.locked(order) as (session, account), pytest.raises(OperatorError, match="accounts repair"):
        payments.adjust(session, account, 5, "a reason", books.clock())
    other = books.open()
    books.buy(other)  # nobody else is refused

    done = books.repair(order)
    assert done.by_seq == 7
    for _ in range(5):
        books.buy(order)
    books.check(order)
    correction = books.entries(order)[6]
    assert (correction.kind, correction.amount_micros, correction.created_at) == (
        "adjustment",
        0,
        books.clock(),
    )
    assert correction.reason == "a wrong clock dated entries up to 2038-01-19; they go on from the right date"
    assert books.invoice(order).lines[0].queries == 9
    books.clock.now = from_datetime(datetime(2038, 2, 1))
    assert books.invoice(order, "2038-01").lines[0].queries == 3  # billed once, in the month of their date
    books.check(order)


@on_sqlite
def test_repairs_may_follow_each_other_also_one_at_a_wrong_clock(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.misdate(order, YEARS_LATER)
    now, books.clock.now = books.clock(), from_datetime(datetime(2030, 1, 1))
    assert books.repair(order).by_seq == 3
    books.clock.now = now
    books.misdate(order, YEARS_LATER + DAY)
    assert books.repair(order).by_seq == 5
    assert books.repair(order).by_seq is None  # there is nothing left to do
    books.buy(order)
    books.misdate(order, YEARS_LATER)
    books.repair(order)
    books.check(order)
    assert books.invoice(order).lines[0].queries == 2
    books.clock.now = DECEMBER + DAY
    final = books.invoice(order)
    books.buy(order)
    assert books.invoice(order) == final
    books.check(order)


@on_sqlite
def test_a_month_that_a_wrong_clock_invoiced_before_its_end_is_not_opened_again(books: Books) -> None:
    order = books.open(quota=3)
    books.buy(order, images=2)
    now, books.clock.now = books.clock(), DECEMBER + DAY
    early = books.invoice(order)
    assert (early.final, early.number) == (True, 1)
    books.clock.now = now
    with pytest.raises(APIError):
        books.buy(order)
    with pytest.raises(OperatorError, match="2026-11 is final"):
        books.repair(order)
    books.clock.now = DECEMBER
    books.buy(order)
    assert books.invoice(order) == early
    books.check(order)


@on_sqlite
def test_a_repair_leaves_the_invoices_of_months_that_were_over_as_they_were(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.clock.now = DECEMBER + DAY
    final = books.invoice(order)
    books.misdate(order, YEARS_LATER)
    books.repair(order)
    assert books.invoice(order) == final
    books.clock.now += 40 * DAY
    assert books.invoice(order, "2026-12").lines == []
    books.check(order)


@on_sqlite
def test_after_a_repair_the_period_goes_on_with_what_the_wrong_clock_counted(books: Books) -> None:
    order = books.open(quota=4)
    books.clock.now = DECEMBER + 60 * SECOND
    books.buy(order, images=2)
    books.misdate(order, YEARS_LATER)
    books.repair(order)
    books.buy(order)
    assert (books.account(order).queries_used, books.key(order).queries_used) == (4, 4)
    books.clock.now = DECEMBER + 31 * DAY
    books.buy(order)
    assert books.account(order).queries_used == 1
    with books.locked(order) as (session, account):
        payments.refund(session, account, 2, books.clock())  # of a charge of an earlier period
    assert books.account(order).spent_micros == 100
    books.check(order)


@on_sqlite
def test_a_rate_that_was_filled_in_the_future_goes_on_now(books: Books) -> None:
    """It was refused as `rate_limited` until 2038."""
    order = books.open(queries_per_second=1)
    with books.locked(order) as (_, account):
        account.rate_refilled_at, account.rate_tokens = YEARS_LATER, 1_000_000
    books.buy(order)
    with pytest.raises(APIError) as refused:
        books.buy(order)
    assert (refused.value.code, refused.value.retry_after) == ("rate_limited", 1)
    books.clock.advance(1)
    books.buy(order)


@on_sqlite
def test_at_a_months_end_an_entry_its_counters_and_its_period_have_one_instant(books: Books) -> None:
    """An invoice by a clock half a second ahead, then a charge by one behind."""
    order = books.open(quota=1)
    ahead = DECEMBER + SECOND // 4
    books.clock.now = ahead
    assert books.invoice(order).final
    books.clock.now = ahead - SECOND // 2
    books.buy(order)
    books.check(order)
    with pytest.raises(APIError) as refused:
        books.buy(order)
    assert refused.value.code == "quota_exhausted"
    books.clock.now = ahead
    with pytest.raises(APIError) as refused:  # it was charged to December, and December has it no second time
        books.buy(order)
    assert refused.value.code == "quota_exhausted"
    assert books.account(order).queries_used == 1
    assert books.invoice(order, "2026-12").lines[0].queries == 1
    books.check(order)


def test_processes_with_clocks_of_their_own_share_a_months_end(books: Books) -> None:
    order = books.open(quota=2)
    behind = FakeClock()
    served = []
    with closing(
        Admission(books.database, behind, HOLD_SECONDS, watch=ClockWatch(behind, behind.steady))
    ) as other:
        for seconds in (-1, 0, 1):
            books.clock.now = DECEMBER + seconds * SECOND
            behind.now = books.clock.now - 200 * SECOND
            for admission in (books.admission, other):
                asked = replace(order, request_id=f"req_{seconds}_{id(admission)}")
                admitting = admission.admit(asked)
                served.append(admitting.exception() is None)
                if served[-1]:
                    admission.settle(order.account_id, asked.request_id).result()
                books.check(order)
    assert served == [True, True, True, True, False, False]
    for month in ("2026-11", "2026-12"):
        assert books.invoice(order, month).lines[0].queries == 2


def heard(books: Books, *, trust_clock: bool = False) -> str | None:
    watch = ClockWatch(books.clock, books.clock.steady)
    ask_database(watch, books.database, trust_clock=trust_clock)
    return watch.fault


def test_a_start_holds_its_clock_against_the_databases_server(postgres: Postgres) -> None:
    with closing(Database(renewed(postgres))) as database:
        for trust_clock in (True, False):
            for clock, is_right in ((FakeClock(), False), (system_clock, True)):
                watch = ClockWatch(clock)
                ask_database(watch, database, trust_clock=trust_clock)
                assert ("the database's" in (watch.fault or "")) is not is_right


def test_a_start_holds_its_clock_against_the_books_where_there_is_no_server(sqlite_books: Books) -> None:
    books = sqlite_books
    order = books.open()
    books.buy(order)
    assert heard(books) is None
    books.clock.advance(399 * 86_400)
    assert heard(books) is None
    books.clock.advance(3 * 86_400)
    assert "VENDOR_TRUST_CLOCK" in (heard(books) or "")
    assert heard(books, trust_clock=True) is None
    books.clock.advance(-402 * 86_400 - 400)
    assert "vendor accounts repair account-" in (heard(books) or "")


def test_what_the_books_have_against_a_clock_ends_with_its_cause(sqlite_books: Books) -> None:
    books = sqlite_books
    order = books.open()
    books.misdate(order, YEARS_LATER)
    watch = ClockWatch(books.clock, books.clock.steady)
    ask_database(watch, books.database, trust_clock=False)
    assert watch.fault is not None
    books.repair(order)
    ask_database(watch, books.database, trust_clock=False)
    assert watch.fault is None
    books.buy(order)
    # Later on, one account that was dated wrongly is that account's trouble.
    books.misdate(order, YEARS_LATER)
    ask_database(watch, books.database, trust_clock=False)
    assert watch.fault is None


def test_a_date_ahead_of_a_clock_does_not_prove_it_right(sqlite_books: Books) -> None:
    books = sqlite_books
    books.misdate(books.open(), YEARS_LATER)
    books.open()
    with books.database.read() as session:
        judged = partial(against_database, session, trust_clock=False, may_be_behind=False)
        assert judged(books.clock()) is None
        assert "VENDOR_TRUST_CLOCK" in (judged(books.clock() + 402 * DAY) or "")


def test_a_clock_that_cannot_be_right_dates_no_new_account_and_no_new_key(sqlite_books: Books) -> None:
    books = sqlite_books
    account = books.account(books.open())
    books.clock.advance(900 * 86_400)

    def do(*, trust_clock: bool) -> None:
        with books.database.write() as session:
            act = Act(session, "os:test", books.clock, trust_clock=trust_clock)
            accounts.open_account(act, "beta", Terms())
            keys.issue(act, "beta", KeyTerms())

    with pytest.raises(WrongClock, match="VENDOR_TRUST_CLOCK"):
        do(trust_clock=False)
    with books.database.write() as session:
        act = Act(session, "os:test", books.clock)
        with pytest.raises(WrongClock, match="VENDOR_TRUST_CLOCK"):
            keys.issue(act, account.name, KeyTerms())
        own = replace(act, customer=Customer(account, None))
        with pytest.raises(APIError) as refused:
            keys.issue(own, account.name, KeyTerms())
    assert not_ready(refused)
    assert "VENDOR" not in refused.value.message
    do(trust_clock=True)


@pytest.mark.parametrize("days", [40, -40])
@on_postgres
def test_no_operator_acts_by_a_clock_that_the_databases_server_contradicts(
    books: Books, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """It closed a month early, redated what was dated rightly, and set prices that never held."""
    with monkeypatch.context() as patch:
        patch.setattr(clock_check, "server_time", server_time)
        books.clock.now = system_clock()
        order = books.open()
        name, month = books.account(order).name, f"{to_datetime(books.clock()):%Y-%m}"
        books.buy(order)
        with books.database.write() as session:
            token = operators.issue(Act(session, "os:test", books.clock), "crm", [OperatorScope.READ])
        acts: list[Callable[[Act], object]] = [
            lambda act: accounts.repair_dates(act, name),
            lambda act: money.adjust(act, name, 5, "a reason", "ticket"),
            lambda act: prices.set_price(act, "icon-clip", "image", 7, "research", new=True),
            lambda act: prices.unset_price(act, "icon-clip", "image", "research"),
            lambda act: keys.rotate(act, order.key_id, 60),
            lambda act: operators.rotate(act, token.token_id, 60),
        ]

        def do(work: Callable[[Act], object]) -> None:
            with books.database.write() as session:
                work(Act(session, "os:test", books.clock, trust_clock=True))

        def issue() -> bool:
            context = ActContext(books.database, books.clock, trust_clock=True, actor="os:test")
            return invoicing.issue_invoice(context, name, month).final

        books.clock.now += days * DAY
        for work in acts:
            with pytest.raises(WrongClock, match="the database's"):
                do(work)
        with pytest.raises(WrongClock, match="the database's"):
            issue()
        assert [entry.kind for entry in books.entries(order)] == ["charge"]
        books.clock.now = system_clock()
        for work in acts:
            do(work)
        assert issue() == (books.clock() >= next_month_start(books.entries(order)[0].created_at))


def test_no_operator_acts_by_a_clock_that_its_watch_saw_step(books: Books) -> None:
    name = books.account(books.open()).name
    books.clock.step(40 * 86_400)
    with books.database.write() as session, pytest.raises(WrongClock, match="was set forward"):
        money.adjust(Act(session, "os:test", books.clock, watch=books.watch), name, 5, "a reason", "ticket")
    context = ActContext(books.database, books.clock, watch=books.watch, actor="os:test")
    with pytest.raises(WrongClock, match="was set forward"):
        invoicing.issue_invoice(context, name, "2026-11")
    books.clock.step(-40 * 86_400)
    assert not invoicing.issue_invoice(context, name, "2026-11").final


@pytest.mark.parametrize("trusted", [True, False])
def test_customers_get_keys_by_a_clock_that_the_operator_trusts(tmp_path: Path, trusted: bool) -> None:
    with LocalVendor(tmp_path, trust_clock=trusted) as vendor:
        key = vendor.key()
        admin = vendor.another_key(key, Scope.ADMIN)
        vendor.clock.advance(402 * 86_400)
        with vendor.books.write() as session:
            act = Act(session, "os:test", vendor.clock)
            code = invitations.invite(act, vendor.account(key).name, 1).code
        visit = Visit(vendor.http)
        visit.sign_in("/invitation", code=code)
        shown = visit.ask("/keys/create", scope="embed")
        assert (shown.status_code, "clock is wrong" in problem_of(shown)) == (
            (200, False) if trusted else (503, True)
        )
        vendor.clock.advance(402 * 86_400)  # the key that was made is no witness any more
        headers = {"authorization": f"Bearer {admin}"}
        answer = vendor.http.post("/v1/keys", json={"label": "", "scopes": ["embed"]}, headers=headers)
        if trusted:
            assert answer.status_code == 201, answer.text
        else:
            assert (error_code(answer), int(answer.headers["retry-after"])) == ("not_ready", 30)
        rotated = vendor.http.post(f"/v1/keys/{admin.split('_')[1]}/rotate", headers=headers)
        if trusted:
            assert rotated.status_code == 200, rotated.text
        else:
            assert (error_code(rotated), int(rotated.headers["retry-after"])) == ("not_ready", 30)
