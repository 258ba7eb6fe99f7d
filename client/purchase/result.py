"""The result of a purchase, and its progress."""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from client.errors import BudgetExhausted
from client.purchase.budget import Budget
from client.vendors.query import Query, Spending
from client.vendors.vendor import EmbedResult


@dataclass(frozen=True)
class PurchaseProgress:
    """How far a purchase is: queries bought, refused, all that are wanted, and millionths of a unit paid."""

    bought: int
    refused: int
    total: int
    cost_micros: int

    @property
    def done(self) -> int:
        """Queries that are settled, one way or the other."""
        return self.bought + self.refused

    def described(self, *, cached: int) -> str:
        """The money, and what the cache had and the vendor refused, for a progress bar."""
        others = {"cached": cached, "refused": self.refused}
        return ", ".join([f"{self.cost_micros} micros", *(f"{n} {name}" for name, n in others.items() if n)])


@dataclass
class PurchaseResult:
    """The result of a purchase.

    Attributes:
        bought: queries that were paid for and stored.
        cost_micros: what was paid, in millionths of the vendor's currency unit. The few known queries that
            are bought again, to compare a new vendor with what is known, are in it.
        refused: queries that could not be embedded, with the reason; not charged.
        lost: queries whose answer was lost and is no longer to be had: they count as paid.
        uncompared: whether the run's budget did not reach to that comparison; then nothing more was bought.
        out_of_budget: whether the run's budget ended it.
    """

    bought: int = 0
    cost_micros: int = 0
    refused: dict[Query, str] = field(default_factory=dict)
    lost: int = 0
    uncompared: bool = False
    out_of_budget: bool = False

    def require_compared(self, budget: Budget) -> None:
        """Raise where the budget did not reach to comparing a new vendor with what is known.

        Raises:
            BudgetExhausted: so it is.
        """
        if self.uncompared:
            raise BudgetExhausted(
                f"The budget of {budget.described} does not suffice to compare the vendor with what is known "
                "from others, and before that its embeddings are not used together with theirs. Raise it, or "
                "name another --cache for this vendor. What was bought is kept."
            )


class Tally:
    """Counts what a purchase comes to, and reports how far it is. Thread-safe.

    Attributes:
        result: what it came to.
    """

    def __init__(self, on_progress: Callable[[PurchaseProgress], None]) -> None:
        self.result = PurchaseResult()
        self._on_progress = on_progress
        self._open: set[Query] = set()  # what is neither answered nor refused nor left to others
        self._lock = threading.Lock()

    def expect(self, queries: Collection[Query]) -> None:
        """Count these as wanted."""
        with self._lock:
            self._open |= set(queries)

    def leave(self, queries: Collection[Query]) -> None:
        """Count these no more: others have bought them, or will."""
        with self._lock:
            self._open -= set(queries)

    def store(self, answer: EmbedResult, paid: Spending, *, again: bool = False) -> None:
        """Count an answer and what was paid for it; one that was bought `again` brings nothing new."""
        with self._lock:
            self._open -= answer.vectors.keys() | answer.refused.keys()
            self.result.bought += 0 if again else paid.queries
            self.result.cost_micros += paid.cost_micros
            self.result.refused.update(answer.refused)
            self._report()

    def refuse(self, refused: Mapping[Query, str]) -> None:
        """Count queries that could not be embedded, and why."""
        with self._lock:
            self._open -= refused.keys()
            self.result.refused.update(refused)

    def lose(self, queries: int) -> None:
        """Count queries whose answer is lost."""
        with self._lock:
            self.result.lost += queries

    def report(self, bought: int, cost_micros: int) -> None:
        """Report what a job has bought so far, on top of what is counted."""
        with self._lock:
            self._report(bought, cost_micros)

    def _report(self, bought: int = 0, cost_micros: int = 0) -> None:
        result = self.result
        total = result.bought + len(result.refused) + len(self._open)
        counted = (result.bought + bought, len(result.refused), total, result.cost_micros + cost_micros)
        self._on_progress(PurchaseProgress(*counted))
