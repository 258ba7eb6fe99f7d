"""Clocks that step, or are wrong: noticed, told, and never a reason to date a charge into another year."""

import logging
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from shared.errors import ErrorCode
from tests.support.postgres import Postgres
from tests.vendor_service.books import HOLD_SECONDS, Books, laid_out, opened_books
from tests.vendor_service.clocks import FakeClock
from tests.vendor_service.console.visits import Visit, problem_of
from tests.vendor_service.local_vendor import LocalVendor, error_code
from vendor_service.accounts.accounts import Terms
from vendor_service.accounts.keys import KeyTerms, Scope
from vendor_service.acts import accounts, invitations, keys, money, own_keys, prices, tokens
from vendor_service.acts import act as acting
from vendor_service.acts.act import Act
from vendor_service.acts.tokens import OperatorScope
from vendor_service.clock import DAY, SECOND, from_datetime, next_month_start, system_clock, to_datetime
from vendor_service.database.session import server_time
from vendor_service.errors import APIError, OperatorError, WrongClock
from vendor_service.money import invoices, ledger
from vendor_service.money.admission import Admission
from vendor_service.money.clock_watch import ClockReferences, ClockWatch, against_books
from vendor_service.money.invoice_formats import as_text

CAT = {"text": "a photo of a cat"}
DECEMBER = from_datetime(datetime(2026, 12, 1))
YEARS_LATER = from_datetime(datetime(2038, 1, 19, 3, 14, 7))


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


def test_one_request_at_a_wrong_clock_is_put_right_and_billed_in_its_month(
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
        ledger.adjust(session, account, 5, "a reason", books.clock())
    other = books.open()
    books.buy(other)  # nobody else is refused

    done = books.repair(order)
    assert (done.redated, done.first_seq, done.last_seq, done.month) == (2, 5, 6, "2026-11")
    for _ in range(5):
        books.buy(order)
    books.check(order)
    assert books.account(order).queries_used == books.key(order).queries_used == 12
    assert books.invoice(order).lines[0].queries == 12
    assert books.invoice(order, "2038-01").lines == []
    correction = books.entries(order)[6]
    assert (correction.kind, correction.amount_micros, correction.redates_seq) == ("adjustment", 0, 5)
    assert correction.reason in books.invoice(order).notes
    assert "Entries 5 to 6, which a wrong clock dated 2038-01-19" in as_text(books.invoice(order))
    assert books.repair(order).by_seq is None  # there is nothing left to do
    assert len(books.entries(order)) == 12


def test_repairs_may_follow_each_other_also_one_at_a_wrong_clock(books: Books) -> None:
    order = books.open()
    books.buy(order)
    books.misdate(order, YEARS_LATER)
    now, books.clock.now = books.clock(), from_datetime(datetime(2030, 1, 1))
    books.repair(order)
    books.clock.now = now
    books.misdate(order, YEARS_LATER + DAY)
    assert books.repair(order).first_seq == 2
    books.buy(order)
    books.misdate(order, YEARS_LATER)
    books.repair(order)
    books.check(order)
    assert books.invoice(order).lines[0].queries == 5
    books.clock.now = DECEMBER + DAY
    final = books.invoice(order)
    books.buy(order)
    assert books.invoice(order) == final
    books.check(order)


def valid_of_november(books: Books) -> list[int | None]:
    with books.database.read() as session:
        return [each.number for each in invoices.valid_of(session, "2026-11")]


def test_an_invoice_of_a_month_that_a_wrong_clock_ended_is_void_after_the_repair(books: Books) -> None:
    order = books.open(quota=3)
    books.buy(order, images=2)
    now, books.clock.now = books.clock(), YEARS_LATER
    early = books.invoice(order)
    assert (early.final, early.number) == (True, 1)
    books.clock.now = now
    with pytest.raises(APIError):
        books.buy(order)
    assert valid_of_november(books) == [1]
    assert books.repair(order).void_invoices == ["2026-11"]
    assert valid_of_november(books) == []
    books.buy(order)
    draft = books.invoice(order)
    assert (draft.final, draft.lines[0].queries) == (False, 3)
    books.check(order)
    books.clock.now = DECEMBER
    # The void one keeps its number.
    assert books.invoice(order) == draft.model_copy(update={"final": True, "number": 2})
    assert valid_of_november(books) == [2]
    books.check(order)


def test_a_repair_leaves_the_invoices_of_months_that_were_over_as_they_were(books: Books) -> None:
    """And it is noted on the invoice of its own month alone."""
    order = books.open()
    books.buy(order)
    books.clock.now = DECEMBER + DAY
    final = books.invoice(order)
    books.misdate(order, YEARS_LATER)
    assert books.repair(order).void_invoices == []
    assert (books.invoice(order), valid_of_november(books)) == (final, [1])
    assert len(books.invoice(order, "2026-12").notes) == 1
    books.clock.now += 40 * DAY
    assert books.invoice(order, "2027-01").notes == []
    books.check(order)


def test_a_repair_counts_what_was_used_in_the_first_hour_of_a_month(books: Books) -> None:
    order = books.open()
    books.clock.now = DECEMBER + 60 * SECOND
    books.buy(order, images=2)
    books.misdate(order, YEARS_LATER)
    books.repair(order)
    assert (books.account(order).queries_used, books.key(order).queries_used) == (3, 3)
    books.check(order)


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
    ClockReferences(books.database, books.clock, watch, trust_clock=trust_clock).ask()
    return watch.fault


def test_a_start_holds_its_clock_against_the_books_or_the_databases_server(books: Books) -> None:
    order = books.open()
    if not books.database.embedded:
        assert "the database's" in (heard(books) or "")
        books.clock.now = system_clock()
        assert heard(books) is None
        return
    books.buy(order)
    assert heard(books) is None
    books.clock.advance(399 * 86_400)
    assert heard(books) is None
    books.clock.advance(3 * 86_400)
    assert "VENDOR_TRUST_CLOCK" in (heard(books) or "")
    assert heard(books, trust_clock=True) is None
    books.clock.advance(-402 * 86_400 - 400)
    assert "vendor accounts repair account-" in (heard(books) or "")


def test_what_the_books_have_against_a_clock_ends_with_its_cause(books: Books) -> None:
    if not books.database.embedded:
        pytest.skip("PostgreSQL's server knows the time")
    order = books.open()
    books.misdate(order, YEARS_LATER)
    watch = ClockWatch(books.clock, books.clock.steady)
    references = ClockReferences(books.database, books.clock, watch, trust_clock=False)
    references.ask()
    assert watch.fault is not None
    books.repair(order)
    references.ask()
    assert watch.fault is None
    books.buy(order)
    # Later on, one account that was dated wrongly is that account's trouble.
    books.misdate(order, YEARS_LATER)
    references.ask()
    assert watch.fault is None


def test_a_date_ahead_of_a_clock_does_not_prove_it_right(books: Books) -> None:
    books.misdate(books.open(), YEARS_LATER)
    with books.database.read() as session:
        assert against_books(session, books.clock(), may_be_behind=False) is None
        years_on = against_books(session, books.clock() + 402 * DAY, may_be_behind=False)
    assert "VENDOR_TRUST_CLOCK" in (years_on or "")


def test_what_a_wrong_clock_dates_after_the_start_does_not_prove_it_right(books: Books) -> None:
    if not books.database.embedded:
        pytest.skip("PostgreSQL's server knows the time")
    order = books.open()
    books.buy(order)
    books.clock.advance(900 * 86_400)
    watch = ClockWatch(books.clock, books.clock.steady)
    references = ClockReferences(books.database, books.clock, watch, trust_clock=False)
    references.ask()
    assert watch.fault is not None
    books.another_key(order)
    books.open()
    references.ask()
    assert watch.fault is not None


def test_a_clock_that_cannot_be_right_dates_no_new_account_and_no_new_key(books: Books) -> None:
    name = books.account(books.open()).name
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
            keys.issue(act, name, KeyTerms())
        with pytest.raises(APIError) as refused:
            own_keys.issue(act, name, None, KeyTerms(), None)
    assert not_ready(refused)
    assert "VENDOR" not in refused.value.message
    do(trust_clock=True)


@pytest.mark.parametrize("days", [40, -40])
def test_no_operator_acts_by_a_clock_that_the_databases_server_contradicts(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """It closed a month early, redated what was dated rightly, and set prices that never held."""
    url = postgres.create_database(of=laid_out(postgres))
    with opened_books(url) as books, monkeypatch.context() as patch:
        patch.setattr(acting, "server_time", server_time)
        books.clock.now = system_clock()
        order = books.open()
        name, month = books.account(order).name, f"{to_datetime(books.clock()):%Y-%m}"
        books.buy(order)
        with books.database.write() as session:
            token = tokens.issue(Act(session, "os:test", books.clock), "crm", [OperatorScope.READ])
        acts: list[Callable[[Act], object]] = [
            lambda act: accounts.repair_dates(act, name),
            lambda act: money.adjust(act, name, 5, "a reason"),
            lambda act: prices.set_price(act, "research", "icon-clip", "image", 7, new=True),
            lambda act: prices.unset_price(act, "research", "icon-clip", "image"),
            lambda act: keys.rotate(act, order.key_id, 60),
            lambda act: tokens.rotate(act, token.token_id, 60),
        ]

        def do(work: Callable[[Act], object]) -> None:
            with books.database.write() as session:
                work(Act(session, "os:test", books.clock, trust_clock=True))

        def issue() -> bool:
            how = (books.database, "os:test", books.clock, name, month)
            return money.issue_invoice(*how, trust_clock=True).final

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
        money.adjust(Act(session, "os:test", books.clock, watch=books.watch), name, 5, "a reason")
    how = (books.database, "os:test", books.clock, name, "2026-11")
    with pytest.raises(WrongClock, match="was set forward"):
        money.issue_invoice(*how, watch=books.watch)
    books.clock.step(-40 * 86_400)
    assert not money.issue_invoice(*how, watch=books.watch).final


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
