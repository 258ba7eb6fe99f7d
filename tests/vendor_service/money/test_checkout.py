"""A request buys: held first, settled for what was answered, and voided with all traces but those it owes."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import select

from shared.errors import APIError, ErrorCode
from tests.support.vendor_process import wait_until
from tests.vendor_service.books import Books, asking
from vendor_service.database.tables import Hold
from vendor_service.database.working_set import WorkingSet
from vendor_service.metrics import Metrics
from vendor_service.money import checkout, payments
from vendor_service.money.charging import Charging
from vendor_service.money.checkout import Checkout, Precheck, Sale
from vendor_service.money.orders import Admitted, Order
from vendor_service.money.rate import Allowance

# What the books hold is tested with Admission, on each kind of database.
pytestmark = pytest.mark.parametrize("books", ["sqlite"], indirect=True)


def at(books: Books) -> Checkout:
    return Checkout(books.admission, Precheck(books.clock), Allowance(books.clock), Metrics())


def sold(
    books: Books, counter: Checkout, order: Order, work: Callable[[Sale], Awaitable[Admitted]]
) -> Admitted:
    """What comes of an order whose sale does some `work`."""

    async def sell() -> Admitted:
        async with await counter.hold(order, books.account(order), books.key(order)) as sale:
            return await work(sale)

    return asyncio.run(sell())


def answering(**answered: int) -> Callable[[Sale], Awaitable[Admitted]]:
    async def settle(sale: Sale) -> Admitted:
        counts: dict[Any, int] = dict(answered)
        expected = sale.expected(counts)
        admitted = await sale.settle(counts)
        assert admitted.replayed or expected.cost_micros in (0, admitted.cost_micros)
        return admitted

    return settle


@pytest.mark.parametrize("keyed", [True, False], ids=["held", "at once"])
@pytest.mark.parametrize(
    ("terms", "answered", "cost"),
    [
        ({}, {"image": 2, "text": 1}, 220),
        ({}, {"text": 1}, 20),
        ({"quota": 2}, {"image": 1, "text": 1}, 120),
        ({"spend_limit_micros": 20}, {"text": 1}, 20),
        ({"credit_micros": 120}, {"image": 1, "text": 1}, 120),
    ],
)
def test_what_is_answered_of_what_may_shrink_is_charged(
    books: Books, terms: dict[str, Any], answered: dict[str, int], cost: int, keyed: bool
) -> None:
    order = asking(books.open(**terms), request_id="mine", images=2, texts=1, may_shrink=True)
    order = asking(order, idempotency_key="k") if keyed else order
    admitted = sold(books, at(books), order, answering(**answered))
    assert (admitted.cost_micros, admitted.counts) == (cost, answered)
    assert admitted.charged is not None
    assert [(each.amount_micros, each.counts) for each in books.entries(order)[-1:]] == [(-cost, answered)]
    account = books.check(order)
    assert (account.queries_held, account.queries_used) == (0, sum(answered.values()))


@pytest.mark.parametrize("keyed", [True, False], ids=["held", "at once"])
@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ({"quota": 2}, "quota_exhausted"),
        ({"spend_limit_micros": 219}, "spend_limit_reached"),
        ({"credit_micros": 219}, "insufficient_credit"),
    ],
)
def test_more_than_the_limits_leave_is_not_charged_though_the_least_of_it_would_fit(
    books: Books, terms: dict[str, Any], code: str, keyed: bool
) -> None:
    order = asking(books.open(**terms), request_id="mine", images=2, texts=1, may_shrink=True)
    order = asking(order, idempotency_key="k") if keyed else order
    with pytest.raises(APIError) as refused:
        sold(books, at(books), order, answering(image=2, text=1))
    assert refused.value.code == code
    account = books.check(order)
    assert (account.queries_held, account.queries_used, account.ledger_seq) == (
        0,
        0,
        int("credit_micros" in terms),
    )


@pytest.mark.parametrize("keyed", [True, False], ids=["held", "at once"])
def test_an_answer_of_nothing_costs_nothing(books: Books, keyed: bool) -> None:
    order = asking(books.open(), request_id="mine", images=2, may_shrink=True)
    order = asking(order, idempotency_key="k") if keyed else order
    admitted = sold(books, at(books), order, answering())
    assert (admitted.cost_micros, admitted.charged) == (0, None)
    assert books.entries(order) == []
    books.check(order)


def test_a_replay_answers_what_was_paid_for_and_no_more(books: Books) -> None:
    order = asking(books.open(), request_id="mine", images=2, may_shrink=True, idempotency_key="k")
    counter = at(books)
    sold(books, counter, order, answering(image=1))
    again = asking(order, request_id="again")
    assert sold(books, counter, again, answering(image=1)).replayed
    for answered, code in ((2, "idempotency_key_expired"), (0, "conflict")):
        with pytest.raises(APIError) as refused:
            sold(books, counter, again, answering(image=answered))
        assert refused.value.code == code
    assert len(books.entries(order)) == 1
    with books.locked(order) as (session, account):
        payments.refund(session, account, 1, books.clock())
    with pytest.raises(APIError, match="was refunded"):
        sold(books, counter, again, answering(image=1))
    books.check(order)


@pytest.mark.parametrize("keyed", [True, False], ids=["held", "at once"])
@pytest.mark.parametrize(
    ("error", "tokens"),
    [
        (APIError(ErrorCode.UNSUPPORTED_IMAGE_FORMAT, "no image"), 8),
        (APIError(ErrorCode.OVERLOADED, "full"), 10),
        (ZeroDivisionError(), 10),
    ],
    ids=["the caller's", "the vendor's", "a fault"],
)
def test_what_fails_is_not_charged_and_is_counted_against_the_rate_where_it_is_the_callers(
    books: Books, error: Exception, tokens: int, keyed: bool
) -> None:
    order = asking(books.open(queries_per_second=1), request_id="mine", images=2)
    order = asking(order, idempotency_key="k") if keyed else order

    async def fail(sale: Sale) -> Admitted:
        sale.took(0, 0.5)
        raise error

    with pytest.raises(type(error)):
        sold(books, at(books), order, fail)
    account = books.check(order)
    assert (account.queries_held, account.ledger_seq) == (0, 0)
    left = 8 if keyed else tokens  # what was held was admitted, which counts
    books.buy(asking(order, idempotency_key=None), images=left)
    with pytest.raises(APIError, match="queries a second"):
        books.admit(asking(order, idempotency_key=None), images=1)


def test_where_the_model_takes_long_the_price_is_held_meanwhile(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkout, "_SOON_SECONDS", 0.01)
    order = asking(books.open(), request_id="mine", images=2)
    held: list[int] = []

    async def encode() -> int:
        for _ in range(200):
            await asyncio.sleep(0.01)
            if books.account(order).queries_held:
                break
        held.append(books.account(order).queries_held)
        return 1

    async def answer(sale: Sale) -> Admitted:
        assert await sale.during(encode, {"image": 2}) == 1
        return await sale.settle({"image": 2})

    assert sold(books, at(books), order, answer).cost_micros == 200
    assert held == [2]
    books.check(order)


def test_a_hold_that_comes_after_its_caller_has_gone_is_released(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = asking(books.open(), request_id="mine", images=2, idempotency_key="k")
    begun, gone, admit = threading.Event(), threading.Event(), Charging.admit

    def late(self: Charging, order: Order, rows: WorkingSet) -> Admitted:
        begun.set()
        assert gone.wait(10)
        return admit(self, order, rows)

    async def leave() -> None:
        holding = asyncio.ensure_future(at(books).hold(order, books.account(order), books.key(order)))
        await asyncio.to_thread(begun.wait, 10)
        holding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holding
        gone.set()

    def states() -> Sequence[str]:
        with books.database.read() as session:
            return session.scalars(select(Hold.state)).all()

    monkeypatch.setattr(Charging, "admit", late)
    asyncio.run(leave())
    wait_until(lambda: states() == ["voided"])
    assert books.check(order).queries_held == 0
