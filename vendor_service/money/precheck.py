"""A check before admission: whether an order would be refused, found out before any work is done for it."""

import math
import time
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.kinds import KINDS, UnitPrices, cost_micros
from vendor_service.clock import Clock
from vendor_service.database.rows import standing
from vendor_service.database.session import Database
from vendor_service.database.tables import Account, ApiKey, Hold, limited_by
from vendor_service.errors import APIError
from vendor_service.money import billing_log, limits, periods, prices, rate
from vendor_service.money.orders import Order
from vendor_service.money.replays import STANDARD, ReplayTerms

# How long prices are believed without a look at the books.
_PRICES_LAST_SECONDS = 1.0
_NO_PRICE: UnitPrices = dict.fromkeys(KINDS, 0)


class Precheck:
    """Looks at the books, and refuses what admission would refuse now. It changes and locks nothing there.

    It decides nothing in anybody's favour: what passes is decided by `Admission`, later. Thread-safe.
    """

    def __init__(self, database: Database, clock: Clock, replays: ReplayTerms = STANDARD) -> None:
        self._database = database
        self._clock = clock
        self._replays = replays
        self._prices: dict[tuple[str, str], tuple[float, UnitPrices]] = {}

    def passes(self, whole: Order, least: Sequence[Order], account: Account, key: ApiKey) -> bool:
        """Whether one of the `least` orders fits the limits, by rows that were read a while ago.

        It asks no database. The rows are the caller's own copies, and the `whole` order is counted on them:
        so what this process lets through meanwhile uses up what they say is left. Where it does not pass,
        `check` has the last word.
        """
        price = self._known_price(whole, account, key)
        if price is None:
            return False
        now = self._clock()
        if all(_error_of(account, key, order, price, None, now, self._replays) for order in least):
            return False
        rate.take(account, key, whole.queries, now)
        limits.hold(account, key, whole, cost_micros(whole.counts, price))
        return True

    def _known_price(self, order: Order, account: Account, key: ApiKey) -> UnitPrices | None:
        limits_of_money = {each.spend_limit_micros for each in limited_by(account, key)}
        if {order.max_cost_micros, account.credit_micros, *limits_of_money} == {None}:
            return _NO_PRICE  # no limit depends on it
        read_at, price = self._prices.get((account.plan, order.model), (-math.inf, None))
        return price if time.monotonic() - read_at < _PRICES_LAST_SECONDS else None

    def check(self, orders: Sequence[Order], *, left: Order | None = None) -> None:
        """Make sure, by the books as they are, that one of the orders would be admitted now.

        They are one request's: the whole of it, or the least that may be left of it. What is `left` of it is
        not admitted, and must be as much as was paid for, if anything was.

        Raises:
            APIError: what `Admission.admit` would raise for the last of them.
        """
        now, first, began = self._clock(), orders[0], time.perf_counter()
        with self._database.read() as session:
            stands = standing(session.connection(), first.key_id)
            assert stands is not None  # its caller was identified by it
            account, key = stands
            price = prices.current(session, account.plan, first.model, now)
            earlier = _earlier(session, first)
        self._prices[account.plan, first.model] = (time.monotonic(), price)
        error = None
        for order in orders:
            error = _error_of(account, key, order, price, earlier, now, self._replays)
            if error is None:
                self._check_left(left, earlier, now)
                return
        assert error is not None
        billing_log.refused(orders[-1], error, time.perf_counter() - began)
        raise error

    def _check_left(self, left: Order | None, earlier: Hold | None, now: int) -> None:
        if left is not None and earlier is not None and self._replays.check(earlier, left, now):
            self._replays.check_counts(earlier, left)


def _earlier(session: Session, order: Order) -> Hold | None:
    if order.idempotency_key is None:
        return None
    live = (Hold.account_id == order.account_id, Hold.state != "voided")
    return session.scalar(select(Hold).where(Hold.idempotency_key == order.idempotency_key, *live))


def _error_of(
    account: Account,
    key: ApiKey,
    order: Order,
    price: UnitPrices,
    earlier: Hold | None,
    now: int,
    replays: ReplayTerms,
) -> APIError | None:
    """In the order in which admission asks; the rows are no session's, so the new period stays in memory."""
    try:
        limits.check_status(account, key, order, now)
        periods.roll(account, key, now)
        rate.check(account, key, order.queries, now)
        if earlier is None or not replays.check(earlier, order, now):
            limits.check(account, key, order, cost_micros(order.counts, price), now)
    except APIError as error:
        return error
    return None
