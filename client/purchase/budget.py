"""The budget of a run, in queries and in money."""

import threading
from collections.abc import Iterable

from client.vendors.query import Query, Spending, counts_of
from shared.embeddings import Prices

NOTHING = Spending(0, 0)


def price(queries: Iterable[Query], prices: Prices) -> Spending:
    """The cost of some queries."""
    counts = counts_of(queries)
    return Spending(counts.total(), prices.cost_of(counts))


def highest(one: Prices, other: Prices) -> Prices:
    """The higher price of each kind."""
    others = other.by_kind
    return Prices.of({kind: max(micros, others[kind]) for kind, micros in one.by_kind.items()})


class Budget:
    """The budget of a run, in queries and in money. Thread-safe; batches in flight count as paid.

    The limits are the run's own, over all its resumptions; `None` is none. `spent` is what was paid before.
    """

    def __init__(
        self, queries: int | None, max_spend_micros: int | None = None, *, spent: Spending = NOTHING
    ) -> None:
        self.queries = queries
        self.max_spend_micros = max_spend_micros
        self._spent = spent
        self._reserved = NOTHING
        self._lock = threading.Lock()

    @property
    def spent(self) -> Spending:
        """The amount paid so far."""
        return self._spent

    @property
    def committed(self) -> Spending:
        """The amount paid, and the amount set aside."""
        return self._spent + self._reserved

    @property
    def described(self) -> str:
        """The limits in words."""
        limits = [(self.queries, "queries"), (self.max_spend_micros, "micros")]
        return " and ".join(f"{limit} {unit}" for limit, unit in limits if limit is not None) or "any size"

    def enough_for(self, amount: Spending, *, counted_by: str = "--budget") -> str:
        """The limits that do not allow so much more, as options that would, in words that follow "with".

        Args:
            amount: what is still to be bought.
            counted_by: the option that limits queries.
        """
        needed = self.committed + amount
        limits = (
            (counted_by, self.queries, needed.queries),
            ("--max-spend", self.max_spend_micros, needed.cost_micros),
        )
        short = (
            f"a {option} of at least {enough}"
            for option, limit, enough in limits
            if limit is not None and limit < enough
        )
        return " and ".join(short) or "the same limits"

    def reserve(self, amount: Spending) -> bool:
        """Set the price of something aside before it is sent; False, and nothing done, beyond the limits."""
        with self._lock:
            queries = self._spent.queries + self._reserved.queries + amount.queries
            cost = self._spent.cost_micros + self._reserved.cost_micros + amount.cost_micros
            if self.queries is not None and queries > self.queries:
                return False
            if self.max_spend_micros is not None and cost > self.max_spend_micros:
                return False
            self._reserved += amount
            return True

    def settle(self, reserved: Spending, *, paid: Spending) -> None:
        """Release a reservation, of which `paid` was charged."""
        with self._lock:
            self._reserved -= reserved
            self._spent += paid

    def set_aside(self, amount: Spending) -> None:
        """Count something as reserved that may have been paid for, even beyond the limits."""
        with self._lock:
            self._reserved += amount

    def catch_up(self, spent: Spending) -> None:
        """Take what the run has paid from its receipts, for another process may have stored some meanwhile.

        Nothing that is paid may be on its way to `settle`.
        """
        with self._lock:
            self._spent = spent
