"""A check before admission: whether an order fits the limits by what is known without a look at the books."""

import math
import time
from dataclasses import replace

from shared.kinds import KINDS, UnitPrices
from vendor_service.clock import Clock
from vendor_service.database.tables import Account, ApiKey, limited_by
from vendor_service.errors import APIError
from vendor_service.money import limits, periods, rate
from vendor_service.money.limits import Asked
from vendor_service.money.orders import Order

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
            limits.check_status(account, key, order, now)
            periods.roll(account, key, now)
            rate.check(account, key, 1 if order.may_shrink else order.queries, now)
            least = replace(order, counts=order.least(price))
            limits.check(Asked(account, key, least, price, now))
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
