"""Checkout: how a request buys. Its price is held before anything is done for it, and settled at its end.

    async with await checkout.hold(order, account, key) as sale:
        ...                                     # prepare, and tell the sale what that took
        encoded = await sale.during(encoding, answered)
        admitted = await sale.settle(answered, refused, buckets)

Few queries that the limits allowed a moment ago are sold in the same way with nothing held: a hold would cost
the books as much again as the charge does. What leaves the block by an error is voided: nothing is charged.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection, Coroutine
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from types import TracebackType
from typing import Self, TypeVar

from shared.errors import ErrorCode
from shared.kinds import KINDS, Counts, UnitPrices, cost_micros
from vendor_service.clock import Clock
from vendor_service.database.tables import Account, ApiKey, limited_by, roll_periods
from vendor_service.database.view import View
from vendor_service.errors import APIError, CommitInDoubt
from vendor_service.metrics import Metrics
from vendor_service.money import limits, rate, standing
from vendor_service.money.admission import Admission
from vendor_service.money.limits import Asked
from vendor_service.money.orders import Admitted, Order
from vendor_service.money.rate import Allowance, cost_of
from vendor_service.money.replays import check_counts

# Nothing is held for so few queries if the model answers so soon.
_FEW_QUERIES = 8
_SOON_SECONDS = 0.02
# Errors by which the vendor itself fails; its customer does not pay for them.
_VENDORS_OWN = {
    ErrorCode.INTERNAL_ERROR,
    ErrorCode.OVERLOADED,
    ErrorCode.NOT_READY,
    ErrorCode.SHUTTING_DOWN,
}

T = TypeVar("T")
Timed = Callable[[], AbstractContextManager[None]]

_log = logging.getLogger(__name__)


# How long prices are believed.
_PRICES_LAST_SECONDS = 1.0
_NO_PRICE: UnitPrices = dict.fromkeys(KINDS, 0)


class Precheck:
    """Remembers prices, and counts on rows that were read a while ago. It asks no database.

    It decides nothing in anybody's favour: what passes is decided by `Admission`, later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._prices: dict[tuple[str, str], tuple[float, UnitPrices]] = {}

    def learn(self, plan: str, model: str, prices: UnitPrices) -> None:
        """Take note of the prices that hold now."""
        self._prices[plan, model] = (time.monotonic(), prices)

    def last_prices(self, plan: str, model: str) -> UnitPrices:
        """The prices that held when they were last heard of; nothing costs anything before that."""
        return self._prices.get((plan, model), (0.0, _NO_PRICE))[1]

    def passes(self, order: Order, account: Account, key: ApiKey) -> bool:
        """Whether an order, or the least that may be left of it, fits the limits by these rows.

        They are the caller's own copies, and the whole order is counted on them: so what this process lets
        through meanwhile uses up what they say is left. Where it does not pass, `Admission` has the last
        word.
        """
        price = self._known_price(order, account, key)
        if price is None:
            return False
        now = self._clock()
        try:
            standing.check(account, key, order.secret_hash, now)
            roll_periods(account, key, now)
            rate.check(account, key, 1 if order.may_shrink else order.queries, now)
            limits.check(Asked(account, key, order.least(price), price, now))
        except APIError:
            return False
        rate.take(account, key, order.queries, now)
        limits.hold(Asked(account, key, order, price, now))
        return True

    def _known_price(self, order: Order, account: Account, key: ApiKey) -> UnitPrices | None:
        limits_of_money = {each.spend_limit_micros for each in limited_by(account, key)}
        if {order.max_cost_micros, account.credit_micros, *limits_of_money} == {None}:
            return _NO_PRICE  # no limit depends on it
        read_at, price = self._prices.get((account.plan, order.model), (-math.inf, None))
        return price if time.monotonic() - read_at < _PRICES_LAST_SECONDS else None


class Checkout:
    """Sells to requests. It belongs to the event loop."""

    def __init__(
        self, admission: Admission, precheck: Precheck, allowance: Allowance, metrics: Metrics
    ) -> None:
        self.admission = admission
        self.precheck = precheck
        self.allowance = allowance
        self.metrics = metrics

    async def hold(self, order: Order, account: Account, key: ApiKey, timed: Timed = nullcontext) -> "Sale":
        """Hold the price of an order, or find what was paid for before, before anything is done for it.

        `account` and `key` are the caller's rows as they were a moment ago, and `timed` notes how long the
        books take. An order that fits the limits only if it shrinks is held once it has.

        Raises:
            APIError: a limit does not allow it, or as `Admission.admit`; nothing is held then.
        """
        # Nobody needs the hold: neither a retry under its idempotency key, nor a count of those in flight.
        is_free = order.idempotency_key is None and key.concurrency is None
        sale = Sale(self, order, account, key, timed)
        try:
            self.allowance.check(View.of_project(key))
        except APIError:
            self.metrics.decided("refused")
            raise
        if order.queries <= _FEW_QUERIES and is_free and self.precheck.passes(order, account, key):
            sale.hold_after = _SOON_SECONDS
        else:
            await sale.hold(order)
        return sale


class Sale:
    """One request's sale: what is held for it, and what was prepared for it and is not paid for."""

    def __init__(self, checkout: Checkout, order: Order, account: Account, key: ApiKey, timed: Timed) -> None:
        self._checkout = checkout
        self._order = order
        self._account = account
        self._key = key
        self._timed = timed
        self.hold_after = 0.0  # seconds that the answer may take with nothing held
        self._held: Admitted | None = None
        self._is_settled = False
        self._unrated = order.queries  # prepared, and not counted against the rate
        self._seconds = dict.fromkeys(range(order.queries), 0.0)  # of those that are not paid for

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None
    ) -> None:
        if error is not None and not self._is_settled:
            await self._void(error)

    def took(self, index: int, seconds: float) -> None:
        """Note the processor time that it took to prepare a query."""
        self._seconds[index] = seconds

    async def hold(self, order: Order) -> None:
        """Hold the price of an order, or find what was paid for before; see `Checkout.hold`."""
        metrics, admitting = self._checkout.metrics, self._checkout.admission.admit(order)
        try:
            with self._timed():
                admitted = await asyncio.wrap_future(admitting)
        except asyncio.CancelledError:
            if not admitting.cancelled():  # the books hold it all the same
                self._unrated = 0
                admitting.add_done_callback(self._release_late)
            raise
        except CommitInDoubt as doubt:  # of a hold, which is no charge
            metrics.decided("refused")
            message = "the vendor's database went away; nothing was charged, try again"
            raise APIError(doubt.code, message, retry_after=1) from doubt
        except APIError:
            metrics.decided("refused")
            raise
        if not admitted.counts:
            return
        self._held = admitted
        metrics.decided("replayed" if admitted.replayed else "held")
        self._unrated -= order.queries
        self._learn(admitted)

    async def during(self, work: Callable[[], Coroutine[None, None, T]], answered: Counts) -> T:
        """Wait for what the answer takes, with the price held; at first without, where nothing needs it."""
        if self._held is None and not self.hold_after:
            await self.hold(self._order_of(answered))
        if self._held is not None:
            return await work()
        task = asyncio.ensure_future(work())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # somebody has looked
        try:
            await asyncio.wait({task}, timeout=self.hold_after)
            if not task.done():
                await self.hold(self._order_of(answered))
            return await task
        finally:
            task.cancel()

    def expected(self, answered: Counts) -> Admitted:
        """The bill of an answer as it will be, unless a price changes before it is charged."""
        held = self._held
        if held is not None and held.replayed:
            return held
        known = self._checkout.precheck.last_prices(self._account.plan, self._order.model)
        prices = known if held is None or held.prices is None else held.prices
        return Admitted(self._order.request_id, answered, cost_micros(answered, prices), False, None, None)

    async def settle(
        self, answered: Counts, refused: Collection[int] = (), buckets: Collection[int] = ()
    ) -> Admitted:
        """Charge for an answer, which is ready to be sent; only then may it go out.

        `refused` are the queries that were passed over, by their indices, and `buckets` those that the answer
        lies in. Nothing is charged for an answer of nothing, nor for a replay.

        Raises:
            APIError: nothing was charged.
            CommitInDoubt: the database went away before it said whether this was charged.
        """
        try:
            with self._timed():
                admitted = await self._settle(answered, buckets)
        except CommitInDoubt as doubt:
            raise _in_doubt(self._order) from doubt
        except APIError:
            if self._held is None:
                self._checkout.metrics.decided("refused")
            raise
        self._is_settled = True
        if admitted.charged is not None and not admitted.replayed:
            self._checkout.metrics.decided("settled")
            self._learn(admitted)
        self._seconds = {index: self._seconds[index] for index in refused}
        self._count_unbilled()  # what was charged does not wait for the books, nor fail with them
        return admitted

    async def _settle(self, answered: Counts, buckets: Collection[int]) -> Admitted:
        admission, held = self._checkout.admission, self._held
        order = self._order_of(answered)
        if held is not None and held.replayed:
            await self._check_replay(held, answered)
            return held
        if not order.queries:
            admitted = await asyncio.wrap_future(admission.look(order))
            if held is not None:
                await self._release(held)
            return admitted
        if held is None:
            admitted = await asyncio.wrap_future(admission.sell(order, buckets))
            self._unrated -= order.queries
            return admitted
        settling = admission.settle(order.account_id, held.request_id, buckets, answered)
        charged = await asyncio.wrap_future(settling)
        return replace(held, counts=answered, cost_micros=charged.cost_micros, charged=charged)

    def _order_of(self, answered: Counts) -> Order:
        """The order of just what is answered."""
        if answered == self._order.counts and not self._order.may_shrink:
            return self._order
        return replace(self._order, counts=answered, may_shrink=False)

    async def _check_replay(self, held: Admitted, answered: Counts) -> None:
        """Make sure that as much is answered as was paid for; otherwise it is no replay."""
        try:
            check_counts(held.counts, answered)
        except APIError:
            await self._take_back_replay(held)
            raise

    async def _void(self, error: BaseException) -> None:
        """Release what is held, and count what was prepared for nothing."""
        held = self._held
        with suppress(APIError):  # the books are away, and the error itself is to be told
            if held is not None and not held.replayed:
                await self._release(held)
            elif held is not None and _is_vendors_own(error):
                await self._take_back_replay(held)
        if _is_vendors_own(error):
            return
        if isinstance(error, APIError) and error.code == ErrorCode.RATE_LIMITED:
            self._unrated = 0  # a caller whose requests overtake each other is to have the whole of its rate
        counting = self._count_unbilled()
        if counting is not None and isinstance(error, APIError):
            with suppress(Exception):  # it is logged
                await asyncio.wrap_future(counting)

    async def _release(self, held: Admitted) -> None:
        if await asyncio.wrap_future(self._checkout.admission.void(self._order.account_id, held.request_id)):
            self._checkout.metrics.decided("voided")

    def _release_late(self, admitting: "Future[Admitted]") -> None:
        """Release what was held for a caller who had gone by then."""
        if not admitting.cancelled() and admitting.exception() is None and not admitting.result().replayed:
            self._checkout.admission.void(self._order.account_id, self._order.request_id)

    async def _take_back_replay(self, held: Admitted) -> None:
        taking = self._checkout.admission.take_back_replay(self._order.account_id, held.request_id)
        await asyncio.wrap_future(taking)

    def _count_unbilled(self) -> "Future[None] | None":
        """Count against the account what was prepared and is not paid for; the future, where books do it."""
        order, cost = self._order, sum(map(cost_of, self._seconds.values()))
        if cost:
            self._checkout.allowance.take(View.of_project(self._key), cost)
        limited = limited_by(self._account, self._key)
        if not self._unrated or all(each.queries_per_second is None for each in limited):
            return None
        taking = self._checkout.admission.take_tokens(order.account_id, order.key_id, self._unrated)
        taking.add_done_callback(_log_failure)
        return taking

    def _learn(self, admitted: Admitted) -> None:
        if admitted.prices is not None:
            self._checkout.precheck.learn(self._account.plan, self._order.model, admitted.prices)


def _is_vendors_own(error: BaseException) -> bool:
    """Whether a request that ended so failed by the vendor itself, and not by its caller or its deadline."""
    return error.code in _VENDORS_OWN if isinstance(error, APIError) else isinstance(error, Exception)


def _in_doubt(order: Order) -> CommitInDoubt:
    """The error where nobody knows whether an order was charged."""
    if order.idempotency_key is not None:
        return CommitInDoubt.keyed()
    rest = "charged; it may have been, and sent again it may be charged again: look at GET /v1/ledger first"
    return CommitInDoubt.unkeyed(rest)


def _log_failure(counting: "Future[None]") -> None:
    error = None if counting.cancelled() else counting.exception()
    if error is not None and not isinstance(error, APIError):  # of books that are away the database tells
        _log.error("what was prepared in vain could not be counted against a rate", exc_info=error)
