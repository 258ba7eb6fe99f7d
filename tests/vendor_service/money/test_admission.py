"""Charged exactly once, for exactly what was answered, and never over a limit."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from tests.support.figures import holds
from tests.support.vendor_process import wait_until
from tests.vendor_service.agreed import set_coverage_limit
from tests.vendor_service.books import (
    HOLD_SECONDS,
    Books,
    asking,
    on_postgres,
    on_sqlite,
    opened_books,
)
from vendor_service.accounts.keys import KeyTerms, revoke_key
from vendor_service.clock import DAY, SECOND, next_month_start
from vendor_service.database.session import Database
from vendor_service.database.tables import Account
from vendor_service.errors import APIError
from vendor_service.money import payments, prices
from vendor_service.money.admission import Admission
from vendor_service.money.checkout import Precheck
from vendor_service.money.holds import open_holds
from vendor_service.money.orders import Order
from vendor_service.money.replays import ReplayTerms


def refusal(books: Books, order: Order, **changes: object) -> str:
    """The code with which an order is refused."""
    with pytest.raises(APIError) as refused:
        books.admit(order, **changes)
    return refused.value.code.value


def held_after_a_sweep(books: Books, order: Order) -> int:
    books.admission.sweep()
    return books.account(order).queries_held


def test_a_hold_becomes_a_charge(books: Books) -> None:
    order = books.open(quota=10)
    admitted = books.admit(order, images=2, texts=3)
    assert (admitted.cost_micros, admitted.quota_left, admitted.replayed) == (260, 5, False)
    assert books.account(order).queries_held == 5
    books.admission.settle(order.account_id, admitted.request_id).result()
    (entry,) = books.entries(order)
    assert (entry.kind, entry.amount_micros, entry.counts) == ("charge", -260, {"image": 2, "text": 3})
    assert entry.hold_id == admitted.request_id
    books.check(order)


@on_sqlite
def test_a_key_that_was_revoked_since_it_was_checked_is_refused(books: Books) -> None:
    order = books.open()
    held = books.admit(order)
    with books.database.write() as session:
        revoke_key(session, order.key_id, books.clock)
    assert refusal(books, order) == "key_revoked"
    books.admission.settle(order.account_id, held.request_id).result()
    books.check(order)


def test_a_voided_hold_costs_nothing_and_can_be_voided_once(books: Books) -> None:
    order = books.open(quota=1)
    admitted = books.admit(order)
    assert books.admission.void(order.account_id, admitted.request_id).result()
    assert not books.admission.void(order.account_id, admitted.request_id).result()
    with pytest.raises(APIError, match="released"):
        books.admission.settle(order.account_id, admitted.request_id).result()
    assert books.entries(order) == []
    books.buy(order)
    books.check(order)


def test_what_is_settled_cannot_be_voided_and_is_not_charged_again(books: Books) -> None:
    order = books.open()
    bought = books.buy(order)
    assert not books.admission.void(order.account_id, bought.request_id).result()
    books.admission.settle(order.account_id, bought.request_id).result()
    assert len(books.entries(order)) == 1
    books.check(order)


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"quota": 3}, "quota_exhausted"),
        ({"spend_limit_micros": 399}, "spend_limit_reached"),
        ({"credit_micros": 399}, "insufficient_credit"),
    ],
)
@on_sqlite
def test_held_and_used_count_alike_against_every_limit(
    books: Books, terms: dict[str, Any], code: str
) -> None:
    order = books.open(**terms)
    held = books.admit(order, images=2)
    assert refusal(books, order, images=2) == code
    books.admission.settle(order.account_id, held.request_id).result()
    assert refusal(books, order, images=2) == code
    books.buy(order, images=1)
    assert refusal(books, order, images=1) == code
    books.check(order)


@on_sqlite
def test_a_limit_may_be_used_up_exactly(books: Books) -> None:
    order = books.open(quota=4, spend_limit_micros=400, credit_micros=400)
    assert books.buy(order, images=4, max_cost_micros=400).quota_left == 0
    assert books.account(order).credit_micros == 0
    books.check(order)


@on_sqlite
def test_a_month_begins_anew_and_a_total_does_not(books: Books) -> None:
    monthly, total = books.open(quota=1), books.open(quota=1, quota_period="total")
    for order in (monthly, total):
        books.buy(order)
        assert refusal(books, order) == "quota_exhausted"
    books.clock.now = next_month_start(books.clock.now) + SECOND
    books.buy(monthly)
    assert refusal(books, total) == "quota_exhausted"
    books.clock.advance(-60)
    assert refusal(books, monthly) == "quota_exhausted"
    books.clock.advance(-20 * DAY / SECOND)
    assert refusal(books, monthly) == "not_ready"
    books.check(monthly)


@on_sqlite
def test_what_was_held_before_midnight_is_charged_to_the_new_month(books: Books) -> None:
    order = books.open(quota=2)
    books.buy(order)
    held = books.admit(order)
    books.clock.advance(20 * DAY / SECOND)
    books.admission.settle(order.account_id, held.request_id).result()
    assert books.account(order).queries_used == 1
    books.check(order)


def test_an_idempotency_key_is_paid_once(books: Books) -> None:
    order = books.open(quota=3)
    first = books.buy(order, idempotency_key="k", images=1, texts=1)
    again = books.buy(order, idempotency_key="k", images=1, texts=1)
    assert again.replayed
    assert (again.request_id, again.cost_micros, again.quota_left) == (first.request_id, 120, 1)
    assert refusal(books, order, idempotency_key="k", body_hash="other") == "idempotency_key_reused"
    assert refusal(books, order, idempotency_key="k", model_fingerprint="fp_2") == "fingerprint_mismatch"
    assert not books.buy(books.open(), idempotency_key="k").replayed
    assert len(books.entries(order)) == 1
    books.check(order)


@on_sqlite
def test_what_was_paid_for_is_answered_again_so_many_times_and_for_so_long(books: Books) -> None:
    terms = ReplayTerms(window_seconds=100, most=3)
    with closing(Admission(books.database, books.clock, HOLD_SECONDS, terms)) as books.admission:
        order = books.open(quota=2)
        for key in ("often", "late"):
            books.buy(order, idempotency_key=key)
        assert refusal(books, order, idempotency_key="new") == "quota_exhausted"
        for _ in range(3):
            assert books.buy(order, idempotency_key="often").replayed
        assert refusal(books, order, idempotency_key="often") == "replays_exhausted"
        books.clock.advance(99.9)
        assert books.buy(order, idempotency_key="late").replayed
        books.clock.advance(0.1)
        for key in ("often", "late"):
            assert refusal(books, order, idempotency_key=key) == "idempotency_key_expired"
        assert refusal(books, order, idempotency_key="late", body_hash="x") == "idempotency_key_reused"
        assert books.account(order).queries_used == len(books.entries(order)) == 2
        books.check(order)


@on_sqlite
def test_a_replay_that_is_taken_back_does_not_count(books: Books) -> None:
    terms = ReplayTerms(most=1)
    with closing(Admission(books.database, books.clock, HOLD_SECONDS, terms)) as books.admission:
        order = books.open()
        first = books.buy(order, idempotency_key="k")
        for _ in range(2):
            # Even twice, and before any: there are never more than the terms say.
            books.admission.take_back_replay(order.account_id, first.request_id).result()
        for _ in range(3):
            assert books.buy(order, idempotency_key="k").replayed
            assert refusal(books, order, idempotency_key="k") == "replays_exhausted"
            books.admission.take_back_replay(order.account_id, first.request_id).result()
        assert len(books.entries(order)) == 1
        books.check(order)


@on_sqlite
def test_what_was_paid_for_is_not_answered_with_more_or_less(books: Books) -> None:
    order = books.open()
    books.buy(order, idempotency_key="k", images=3)
    for images, texts, told in (
        (4, 0, "idempotency_key_expired"),
        (3, 1, "idempotency_key_expired"),
        (2, 0, "conflict"),
        (2, 1, "conflict"),
    ):
        assert refusal(books, order, idempotency_key="k", images=images, texts=texts) == told
    assert books.buy(order, idempotency_key="k", images=3).replayed
    assert books.account(order).queries_used == 3
    books.check(order)


@on_sqlite
def test_replays_count_against_the_rate(books: Books) -> None:
    order = books.open(queries_per_second=1)
    for _ in range(2):
        books.buy(order, images=5, idempotency_key="k")
    assert refusal(books, order, images=5, idempotency_key="k") == "rate_limited"
    books.clock.advance(5)
    assert books.buy(order, images=5, idempotency_key="k").replayed


def refund(books: Books, order: Order, seq: int) -> None:
    with books.database.write() as session:
        payments.refund(session, session.get_one(Account, order.account_id), seq, books.clock())


@on_sqlite
def test_a_refund_ends_replays_and_frees_the_spend_limit_but_not_the_quota(books: Books) -> None:
    order = books.open(KeyTerms(spend_limit_micros=300), spend_limit_micros=300, quota=5, credit_micros=300)
    books.buy(order, images=3, idempotency_key="k")
    assert refusal(books, order) == "spend_limit_reached"
    refund(books, order, 2)
    books.check(order)
    assert refusal(books, order, images=3, idempotency_key="k") == "charge_refunded"
    books.buy(order, images=2)
    assert refusal(books, order) == "quota_exhausted"
    assert (books.account(order).spent_micros, books.account(order).queries_used) == (200, 5)
    books.check(order)


@on_sqlite
def test_a_refund_of_a_former_month_frees_nothing_of_this_one(books: Books) -> None:
    order = books.open(spend_limit_micros=300)
    books.buy(order, images=3)
    books.clock.advance(20 * DAY / SECOND)
    books.buy(order, images=2)
    refund(books, order, 1)
    assert books.account(order).spent_micros == 200
    assert refusal(books, order, images=2) == "spend_limit_reached"
    books.check(order)
    refund(books, order, 2)
    assert books.account(order).spent_micros == 0
    books.check(order)


@on_sqlite
def test_a_refund_of_a_charge_of_a_months_first_instant_frees_that_months_spend_limit(books: Books) -> None:
    """All are dated so that a clock behind the one by which the month before was closed makes."""
    order = books.open(spend_limit_micros=300)
    books.clock.now = next_month_start(books.clock.now)
    books.buy(order, images=3)
    assert books.entries(order)[0].created_at == books.account(order).period_started_at
    refund(books, order, 1)
    assert books.account(order).spent_micros == 0
    books.buy(order, images=3)
    books.check(order)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("UPDATE holds SET refunded_at = NULL", "refunded holds"),
        ("UPDATE accounts SET spent_micros = 100", "spent_micros"),
    ],
)
@on_sqlite
def test_a_refund_that_the_counters_do_not_know_of_is_found(books: Books, change: str, found: str) -> None:
    order = books.open()
    books.buy(order)
    refund(books, order, 1)
    books.check(order)
    with books.database.write() as session:
        session.execute(text(change))
    assert found in str(books.problem(order))


@on_sqlite
def test_an_idempotency_key_in_flight_waits_for_its_outcome(books: Books) -> None:
    order = books.open()
    held = books.admit(order, idempotency_key="k")
    assert refusal(books, order, idempotency_key="k") == "idempotency_in_flight"
    books.admission.void(order.account_id, held.request_id).result()
    assert not books.buy(order, idempotency_key="k").replayed
    assert books.buy(order, idempotency_key="k").replayed
    books.check(order)


@on_sqlite
def test_an_expired_hold_gives_its_idempotency_key_free(books: Books) -> None:
    order = books.open(quota=1)
    lost = books.admit(order, idempotency_key="k")
    books.clock.advance(HOLD_SECONDS)
    assert not books.buy(order, idempotency_key="k").replayed
    with pytest.raises(APIError):
        books.admission.settle(order.account_id, lost.request_id).result()
    assert len(books.entries(order)) == 1
    books.check(order)


def test_the_sweeper_voids_the_expired_and_a_start_voids_all(books: Books) -> None:
    order = books.open()
    old = books.admit(order)
    books.clock.advance(HOLD_SECONDS - 1)
    young = books.admit(order)
    assert books.admission.sweep() == 0
    books.clock.advance(1)
    assert books.admission.sweep() == 1
    with pytest.raises(APIError):
        books.admission.settle(order.account_id, old.request_id).result()
    books.admission.settle(order.account_id, young.request_id).result()
    books.admit(order)
    assert books.admission.void_abandoned() == 1
    assert books.account(order).queries_held == 0
    books.check(order)


@on_sqlite
def test_of_open_holds_the_oldest_are_shown_first(books: Books) -> None:
    order, other = books.open(), books.open()
    held = []
    for each in (order, other, order):
        held.append(books.admit(each).request_id)
        books.clock.advance(1)
    with books.database.read() as session:
        assert [each.request_id for each in open_holds(session, limit=2)] == held[:2]
        name = books.account(order).name
        assert [each.request_id for each in open_holds(session, name)] == [held[0], held[2]]


@on_sqlite
def test_the_holds_of_a_process_last_while_it_lives(books: Books) -> None:
    """Another process sweeps; what is renewed stays, but not for ever, and what nobody renews goes."""
    order, gone = books.open(), books.open()
    held = books.admit(order)
    with closing(Admission(books.database, books.clock, HOLD_SECONDS)) as other:
        other.admit(replace(gone, request_id="req_gone")).result()
        books.clock.advance(HOLD_SECONDS - 1)
        books.admission.renew(longest_seconds=100)
        books.clock.advance(HOLD_SECONDS - 1)
        assert other.sweep() == 1
    assert books.account(gone).queries_held == 0
    assert books.account(order).queries_held == 1
    books.admission.renew(longest_seconds=100)
    books.clock.advance(1)
    assert books.admission.sweep() == 1
    with pytest.raises(APIError, match="released"):
        books.admission.settle(order.account_id, held.request_id).result()
    books.check(order)


def test_a_hold_that_could_not_be_voided_is_voided_once_it_can_be(tmp_path: Path) -> None:
    def read_only(books: Books, pragma: str) -> None:
        with books.database.read() as session:  # of the one connection that the pool has
            session.execute(text(f"PRAGMA query_only = {pragma}"))

    with opened_books(f"sqlite:///{tmp_path / 'books.db'}") as books:
        order = books.open()
        held = books.admit(order, idempotency_key="again")
        read_only(books, "ON")
        voiding = books.admission.void(order.account_id, held.request_id)
        assert isinstance(voiding.exception(), OperationalError)
        read_only(books, "OFF")
        with pytest.raises(APIError, match="still being answered"):
            books.admit(order, idempotency_key="again")
        wait_until(lambda: held_after_a_sweep(books, order) == 0)
        assert not books.buy(order, idempotency_key="again").replayed
        books.check(order)


@on_postgres
def test_a_hold_that_nobody_heard_of_is_voided(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in ("_PATIENCE_SECONDS", "_DOUBT_SECONDS"):
        monkeypatch.setattr(f"vendor_service.database.writer.{seconds}", 0)
    order = books.open()
    commit = books.database.engine.dialect.do_commit

    def commit_and_hang_up(connection: Any) -> None:
        commit(connection)
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(books.database.engine.dialect, "do_commit", commit_and_hang_up)
        assert refusal(books, order) == "overloaded"
    assert books.account(order).queries_held == 1
    wait_until(lambda: held_after_a_sweep(books, order) == 0)
    books.check(order)


@on_sqlite
def test_a_new_price_changes_nothing_that_was_charged(books: Books) -> None:
    order = books.open()
    held = books.admit(order)
    books.clock.advance(1)
    with books.database.write() as session:
        prices.set_price(session, "standard", "icon-clip", "image", 7, books.clock())
    books.admission.settle(order.account_id, held.request_id).result()
    books.buy(order)
    assert [entry.amount_micros for entry in books.entries(order)] == [-100, -7]
    assert [entry.prices["image"] for entry in books.entries(order)] == [100, 7]


@on_sqlite
def test_the_rate_limit_refills_and_never_overflows(books: Books) -> None:
    order = books.open(queries_per_second=2)
    books.buy(order, images=20)
    assert refusal(books, order) == "rate_limited"
    books.clock.advance(-200)
    assert refusal(books, order) == "rate_limited"
    books.clock.advance(200 + 0.5)
    books.buy(order)
    assert refusal(books, order) == "rate_limited"
    books.clock.advance(3600)
    books.buy(order, images=19)
    books.clock.advance(-200)
    books.buy(order)
    assert refusal(books, order) == "rate_limited"


@on_sqlite
def test_a_request_larger_than_the_burst_is_served_and_paid_off(books: Books) -> None:
    order = books.open(queries_per_second=1)
    status = books.buy(order, images=30).rate
    assert status is not None
    assert (status.limit, status.remaining, status.reset_seconds) == (10, 0, 30)
    books.clock.advance(20)
    assert refusal(books, order) == "rate_limited"
    books.clock.advance(1)
    books.buy(order)


def test_a_hold_that_is_renewed_after_the_sweep_found_it_is_kept(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = books.open()
    held = books.admit(order)
    books.clock.advance(HOLD_SECONDS)
    submit = books.admission._writer.submit

    def renewed_first(*arguments: Any) -> Any:
        books.admission.renew(10 * HOLD_SECONDS)
        return submit(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(books.admission._writer, "submit", renewed_first)
        assert books.admission.sweep() == 0
    books.admission.settle(order.account_id, held.request_id).result()
    books.check(order)


@on_sqlite
def test_a_refusal_takes_no_rate_tokens(books: Books) -> None:
    order = books.open(queries_per_second=1, quota=10)
    assert refusal(books, order, images=11) == "quota_exhausted"
    books.buy(order, images=10)


def test_a_sale_is_one_entry_and_holds_nothing(books: Books) -> None:
    order = books.open(quota=10, queries_per_second=2)
    sold = books.sell(order, images=2, texts=3)
    (entry,) = books.entries(order)
    assert sold.charged is not None
    assert (sold.charged.seq, sold.charged.entry_hash) == (entry.seq, entry.entry_hash)
    assert (sold.cost_micros, sold.quota_left, sold.replayed) == (260, 5, False)
    assert sold.rate is not None
    assert sold.rate.remaining == 15
    assert (entry.hold_id, entry.amount_micros) == (sold.request_id, -260)
    account = books.account(order)
    assert (account.queries_used, account.queries_held, account.held_micros) == (5, 0, 0)
    assert books.key(order).requests_held == 0
    assert books.admission.void(order.account_id, sold.request_id).result() is False
    books.check(order)


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"quota": 1}, "quota_exhausted"),
        ({"spend_limit_micros": 199}, "spend_limit_reached"),
        ({"credit_micros": 199}, "insufficient_credit"),
        ({"coverage_limit": 1}, "coverage_limit_reached"),
    ],
)
@on_sqlite
def test_a_sale_that_a_limit_forbids_is_none(books: Books, terms: dict[str, Any], code: str) -> None:
    order = books.open(**terms)
    with pytest.raises(APIError) as refused:
        books.sell(order, images=2)
    assert refused.value.code == code
    assert books.account(order).queries_used == 0
    books.sell(order, images=1, buckets=[1])
    books.check(order)


def test_a_sale_that_is_made_again_is_one_sale(books: Books) -> None:
    """As after a commit of which nobody said whether it had gone through."""
    order = replace(books.open(quota=1), request_id="req_doubtful")
    sold = [books.admission.sell(order).result() for _ in range(2)]
    assert sold[0].charged == sold[1].charged
    assert len(books.entries(order)) == 1
    books.check(order)


@on_sqlite
def test_a_sale_under_a_key_that_was_paid_for_is_a_replay(books: Books) -> None:
    order = books.open(quota=1)
    paid = books.sell(order, idempotency_key="k")
    again = books.sell(order, idempotency_key="k")
    assert (again.replayed, again.request_id, again.charged) == (True, paid.request_id, paid.charged)
    assert refusal(books, order, idempotency_key="k", body_hash="another") == "idempotency_key_reused"
    assert len(books.entries(order)) == 1


@pytest.mark.parametrize("sold", [0, 2], ids=["all held", "a half sold at once"])
@pytest.mark.parametrize("quota", [1, 7, 16])
def test_a_race_for_a_quota_serves_exactly_the_quota(books: Books, quota: int, sold: int) -> None:
    """Through two databases on one file, as two processes would have, and four threads on each.

    So many of four requests are charged at once.
    """
    order = books.open(quota=quota)

    def attempt(number: int) -> str:
        admission = (books.admission, twin)[number % 2]
        asked = replace(order, request_id=f"race_{number}")
        try:
            if number % 4 < sold:
                admission.sell(asked).result()
                return "served"
            admission.admit(asked).result()
        except APIError as refused:
            return refused.code
        admission.settle(order.account_id, f"race_{number}").result()
        return "served"

    with (
        closing(Database(books.database.engine.url.render_as_string())) as second,
        closing(Admission(second, books.clock, HOLD_SECONDS)) as twin,
        ThreadPoolExecutor(8) as pool,
    ):
        outcomes = sorted(pool.map(attempt, range(24)))
    assert outcomes == ["quota_exhausted"] * (24 - quota) + ["served"] * quota
    assert holds(outcomes.count("served"), quota, "queries of a quota")
    books.check(order)


@pytest.mark.parametrize("limit", [1, 7, 30])
def test_a_race_for_coverage_never_passes_the_limit(books: Books, limit: int) -> None:
    """Two processes, as above; each request asks two queries, and two in three open two buckets."""
    order = books.open(coverage_limit=limit)

    def buckets_of(number: int) -> tuple[int, int]:
        return (2 * number, 2 * number + 1) if number % 3 else (0, 1)

    def attempt(number: int) -> str:
        admission = (books.admission, twin)[number % 2]
        try:
            admission.admit(asking(order, request_id=f"race_{number}", images=2)).result()
        except APIError as refused:
            return refused.code
        admission.settle(order.account_id, f"race_{number}", buckets_of(number)).result()
        return "served"

    with (
        closing(Database(books.database.engine.url.render_as_string())) as second,
        closing(Admission(second, books.clock, HOLD_SECONDS)) as twin,
        ThreadPoolExecutor(8) as pool,
    ):
        outcomes = list(pool.map(attempt, range(48)))
    assert set(outcomes) <= {"served", "coverage_limit_reached", "rate_limited"}
    served = [number for number in range(48) if outcomes[number] == "served"]
    opened = {bucket for number in served for bucket in buckets_of(number)}
    account = books.account(order)
    assert account.buckets_covered == len(opened) <= limit
    assert account.queries_held == 0
    with suppress(APIError):  # one after the other, all may be had
        for number in range(1000, 2000):
            books.buy(order, buckets=[number])
    assert books.account(order).buckets_covered == limit
    books.check(order)


def test_a_bucket_counts_once_and_what_is_held_as_if_each_query_opened_one(books: Books) -> None:
    order = books.open(coverage_limit=4)
    books.buy(order, images=3, buckets=[7, 7, 7])
    assert books.account(order).buckets_covered == 1
    held = books.admit(order, images=2)
    assert refusal(books, order, images=2) == "rate_limited"  # it may pass in a moment
    assert refusal(books, order, images=4) == "coverage_limit_reached"
    assert books.account(order).coverage_left == 1
    books.admission.settle(order.account_id, held.request_id, [7, 4095]).result()
    books.admission.settle(order.account_id, held.request_id, [7, 4095]).result()
    assert books.account(order).coverage_left == 2
    books.admission.void(order.account_id, books.admit(order, images=2).request_id).result()
    assert books.account(order).coverage_left == 2
    books.buy(order, model_fingerprint="fp_2", buckets=[7])  # of another model
    assert books.account(order).buckets_covered == 3
    books.check(order)


@on_sqlite
def test_the_end_of_coverage_is_told_before_anything_is_held_and_no_month_resets_it(books: Books) -> None:
    order = books.open(coverage_limit=1)
    paid = books.buy(order, idempotency_key="k", buckets=[1])
    # What was paid for is answered once more.
    assert books.admit(order, idempotency_key="k").request_id == paid.request_id
    books.clock.advance(40 * 86_400)
    with pytest.raises(APIError, match=r"may open a bucket .* 0 left .* limit of 1: ask the vendor"):
        books.admit(order)
    assert refusal(books, order) == "coverage_limit_reached"
    assert not Precheck(books.clock).passes(order, books.account(order), books.key(order))
    with books.locked(order) as (_, account):
        set_coverage_limit(account, 2)
    books.buy(order, buckets=[2])
    assert refusal(books, order) == "coverage_limit_reached"
    with books.locked(order) as (_, account):
        set_coverage_limit(account, None)
    books.buy(order, images=100)
    books.check(order)


@pytest.mark.parametrize(
    ("terms", "times"),
    [
        ({"quota": 7}, 4),
        ({"spend_limit_micros": 450}, 2),
        ({"credit_micros": 600}, 3),
        ({"queries_per_second": 1}, 5),
        ({"coverage_limit": 9}, 5),
    ],
)
@on_sqlite
def test_what_passes_by_rows_of_before_uses_up_what_they_say_is_left(
    books: Books, terms: dict[str, Any], times: int
) -> None:
    """So a flood within the moment for which a caller is remembered is not worked on beyond its limits."""
    order = asking(books.open(**terms), images=2, may_shrink=True)
    precheck = Precheck(books.clock)
    precheck.learn("standard", "icon-clip", {"image": 100, "text": 20})
    remembered = books.account(order), books.key(order)
    passed = [precheck.passes(order, *remembered) for _ in range(times + 1)]
    assert passed == [True] * times + [False]
    assert books.account(order).queries_held == 0
    books.admit(order)  # by the books nothing was asked yet


def test_a_race_of_one_idempotency_key_is_paid_once(books: Books) -> None:
    order = books.open()

    def attempt(_: int) -> str:
        try:
            return "replayed" if books.buy(order, idempotency_key="k").replayed else "paid"
        except APIError as refused:
            return refused.code

    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(attempt, range(24)))
    assert outcomes.count("paid") == 1
    assert set(outcomes) <= {"paid", "replayed", "idempotency_in_flight"}
    books.check(order)
