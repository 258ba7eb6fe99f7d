"""A purchase: how far it is, and what it came to."""

from dataclasses import dataclass, field

from client.errors import BudgetExhausted
from client.purchase.budget import Budget
from client.vendors.query import Query


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
    """What a purchase came to.

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
