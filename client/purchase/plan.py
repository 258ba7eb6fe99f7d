"""The plan of a purchase: which queries to buy, in which order, and when to stop."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence, Set
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

from client.purchase.budget import Budget
from client.purchase.selection import Stratum
from client.vendors.query import Query, Spending

# Class prompts, labelled images, and images without labels.
TrancheName = Literal["texts", "labelled", "unlabelled"]
# What some queries cost.
Cost = Callable[[Collection[Query]], Spending]


@dataclass(frozen=True)
class Tranche:
    """One kind of spending.

    Attributes:
        name: what it buys.
        queries: in the order of purchase; some may be alike.
        strata: the (domain, class) of each query; empty where queries have none.
    """

    name: TrancheName
    queries: Sequence[Query]
    strata: Sequence[Stratum] = ()


@dataclass(frozen=True)
class TranchePlan:
    """The part of a plan for one tranche. A query that an earlier tranche asks too is counted there.

    Attributes:
        name: what it buys.
        queries: queries needed; those that are alike, or counted earlier, are among them.
        cached: distinct queries that the cache answers.
        to_buy: distinct queries that would be bought.
        unaffordable: distinct queries that the budget does not reach.
        cost_micros: the price of `to_buy`.
    """

    name: TrancheName
    queries: int
    cached: int
    to_buy: int
    unaffordable: int
    cost_micros: int


@dataclass(frozen=True)
class PurchasePlan:
    """The queries that a run needs, has and would buy.

    Attributes:
        tranches: the same by kind, in the order of purchase.
        to_buy: distinct queries that the cache lacks, in the order of purchase, as far as the budget reaches.
        beyond: those that it does not reach, in the same order.
        cost_micros: the price of `to_buy`, in millionths of the vendor's currency unit.
        budget_left: queries that the budget would still allow afterwards; `None` for no limit.
        by_stratum: how many image queries of each (domain, class) are in `to_buy`.
    """

    tranches: tuple[TranchePlan, ...]
    to_buy: tuple[Query, ...]
    beyond: tuple[Query, ...]
    cost_micros: int
    budget_left: int | None
    by_stratum: dict[Stratum, int]

    def needed(self, name: TrancheName) -> int:
        """How many queries a tranche needs; none where there is no such tranche."""
        return sum(tranche.queries for tranche in self.tranches if tranche.name == name)

    def had(self, name: TrancheName) -> int:
        """How many distinct queries of a tranche there would be afterwards, from the cache or bought."""
        return sum(tranche.cached + tranche.to_buy for tranche in self.tranches if tranche.name == name)

    @property
    def texts_beyond_budget(self) -> int:
        """Distinct class prompts that the budget does not reach."""
        return sum(tranche.unaffordable for tranche in self.tranches if tranche.name == "texts")

    @property
    def cached(self) -> int:
        """Distinct queries that the cache answers."""
        return sum(tranche.cached for tranche in self.tranches)

    @property
    def unaffordable(self) -> int:
        """Distinct queries that the budget does not reach."""
        return sum(tranche.unaffordable for tranche in self.tranches)

    @property
    def duplicates(self) -> int:
        """Queries that another one is alike: bought once."""
        needed = sum(tranche.queries for tranche in self.tranches)
        return needed - self.cached - self.unaffordable - len(self.to_buy)

    def to_json(self) -> dict[str, Any]:
        """The counts and the price; of what would be bought, how many by domain and class."""
        by_domain: dict[str, dict[str, int]] = {}
        for (domain, name), count in sorted(self.by_stratum.items()):
            by_domain.setdefault(domain, {})[name] = count
        return {
            "prompts": self.needed("texts"),
            "images": self.needed("labelled"),
            "duplicates": self.duplicates,
            "cached": self.cached,
            "to_buy": len(self.to_buy),
            "unaffordable": self.unaffordable,
            "cost_micros": self.cost_micros,
            "budget_left": self.budget_left,
            "to_buy_by_domain_and_class": by_domain,
            "tranches": [asdict(tranche) for tranche in self.tranches],
        }


def plan_purchase(
    tranches: Sequence[Tranche], *, cached: Collection[Query], budget: Budget, cost: Cost
) -> PurchasePlan:
    """Plan to buy tranches one after the other, until the budget ends.

    The order follows the tranches and not the cache: a resumed run goes on where it stopped.

    Args:
        tranches: in the order of purchase.
        cached: queries that need not be bought.
        budget: what may be spent, but for what is set aside in it; the plan itself sets nothing aside.
        cost: what some queries cost.
    """
    order = purchase_order(tranches)
    wanted = [query for query in order if query not in cached]
    to_buy = affordable(wanted, budget, cost)
    strata = dict(
        pair for tranche in tranches if tranche.strata
        for pair in zip(tranche.queries, tranche.strata, strict=True)
    )  # fmt: skip
    left = None if budget.queries is None else max(0, budget.queries - budget.committed.queries - len(to_buy))
    return PurchasePlan(
        tranches=tuple(_planned(tranches, cached, set(to_buy), cost)),
        to_buy=tuple(to_buy),
        beyond=tuple(wanted[len(to_buy) :]),
        cost_micros=cost(to_buy).cost_micros,
        budget_left=left,
        by_stratum=dict(Counter(strata[query] for query in to_buy if query in strata)),
    )


def _planned(
    tranches: Sequence[Tranche], cached: Collection[Query], bought: Set[Query], cost: Cost
) -> Iterator[TranchePlan]:
    seen = set[Query]()
    for tranche in tranches:
        new = set(tranche.queries) - seen
        buying = new & bought
        have = sum(query in cached for query in new)
        yield TranchePlan(
            name=tranche.name,
            queries=len(tranche.queries),
            cached=have,
            to_buy=len(buying),
            unaffordable=len(new) - have - len(buying),
            cost_micros=cost(buying).cost_micros,
        )
        seen |= new


def purchase_order(tranches: Sequence[Tranche]) -> list[Query]:
    """Every distinct query in the order of purchase."""
    return list(dict.fromkeys(chain.from_iterable(tranche.queries for tranche in tranches)))


def affordable(wanted: Sequence[Query], budget: Budget, cost: Cost) -> Sequence[Query]:
    """The longest prefix that the budget allows."""
    trial = Budget(budget.queries, budget.max_spend_micros, spent=budget.committed)
    for count, query in enumerate(wanted):
        if not trial.reserve(cost([query])):
            return wanted[:count]
    return wanted
