"""The plan of a purchase: which queries to buy, in which order, and when to stop."""

import threading
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.buying.queries import Query, Spending
from client.buying.selection import SelectionStrategy, Stratum, image_order
from shared.embeddings import Prices

NOTHING = Spending(0, 0)


def price(queries: Iterable[Query], prices: Prices) -> Spending:
    """What some queries cost."""
    kinds = Counter(query.kind for query in queries)
    return Spending(kinds.total(), prices.cost_micros(images=kinds["image"], texts=kinds["text"]))


class Budget:
    """What a run may still pay, in queries and in money. Thread-safe; what is in flight counts as paid.

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
        """What the run has paid so far."""
        return self._spent

    @property
    def described(self) -> str:
        """The limits in words."""
        limits = [(self.queries, "queries"), (self.max_spend_micros, "micros")]
        return " and ".join(f"{limit} {unit}" for limit, unit in limits if limit is not None) or "any size"

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
        """What was reserved is answered: `paid` of it was charged, the rest is free again."""
        with self._lock:
            self._reserved -= reserved
            self._spent += paid


@dataclass(frozen=True)
class Plan:
    """What a run needs, has and would buy.

    Attributes:
        prompts: class prompts needed.
        images: image queries needed, one a training image.
        views: further image queries needed, of views of these images.
        duplicates: images whose bytes another one already has: bought once.
        cached: distinct queries that the cache answers.
        to_buy: the rest in the order of purchase, as far as the budget reaches.
        unaffordable: queries that the budget does not reach.
        cost_micros: the price of `to_buy`, in millionths of the vendor's currency unit.
        budget_left: queries that the budget would still allow afterwards; `None` for no limit.
        by_stratum: how many image queries of each (domain, class) are in `to_buy`.
    """

    prompts: int
    images: int
    views: int
    duplicates: int
    cached: int
    to_buy: tuple[Query, ...]
    unaffordable: int
    cost_micros: int
    budget_left: int | None
    by_stratum: dict[Stratum, int]

    def to_json(self) -> dict[str, Any]:
        """The counts and the price; of what would be bought, how many by domain and class."""
        by_domain: dict[str, dict[str, int]] = {}
        for (domain, name), count in sorted(self.by_stratum.items()):
            by_domain.setdefault(domain, {})[name] = count
        return {
            "prompts": self.prompts,
            "images": self.images,
            "views": self.views,
            "duplicates": self.duplicates,
            "cached": self.cached,
            "to_buy": len(self.to_buy),
            "unaffordable": self.unaffordable,
            "cost_micros": self.cost_micros,
            "budget_left": self.budget_left,
            "to_buy_by_domain_and_class": by_domain,
        }


def plan_purchase(
    prompts: Sequence[Query],
    images: Sequence[Query],
    strata: Sequence[Stratum],
    *,
    cached: Collection[Query],
    budget: Budget,
    prices: Prices,
    seed: int,
    select: SelectionStrategy = "stratified",
    features: NDArray[np.float32] | None = None,
    views: Sequence[Sequence[Query]] = (),
) -> Plan:
    """Class prompts first; then one query an image; then further views of each, in rounds.

    Images come in the order of `image_order`. Views follow the same order, the second of each image before
    any third. The order follows the seed and not the cache: a resumed run goes on where it stopped.

    Args:
        prompts: one query a class.
        images: one query a training image.
        strata: (domain, class) of each image.
        cached: queries that need not be bought.
        budget: what may be spent; nothing is set aside in it.
        prices: of one query of each kind.
        seed: of the order within and among strata.
        select: how images are chosen where the budget does not reach all.
        features: of each image, shape (n, f), where the selection is by "coverage".
        views: further views of each image, as many as there are of it; may be left out.
    """
    order = purchase_order(prompts, images, strata, seed=seed, select=select, features=features, views=views)
    wanted = [query for query in order if query not in cached]
    to_buy = affordable(wanted, budget, prices)
    further = list(views) or [()] * len(images)
    stratum_of = {
        query: stratum
        for image, others, stratum in zip(images, further, strata, strict=True)
        for query in (image, *others)
    }
    left = None if budget.queries is None else max(0, budget.queries - budget.spent.queries - len(to_buy))
    number_of_views = sum(map(len, views))
    return Plan(
        prompts=len(prompts),
        images=len(images),
        views=number_of_views,
        duplicates=len(prompts) + len(images) + number_of_views - len(order),
        cached=len(order) - len(wanted),
        to_buy=tuple(to_buy),
        unaffordable=len(wanted) - len(to_buy),
        cost_micros=price(to_buy, prices).cost_micros,
        budget_left=left,
        by_stratum=dict(Counter(stratum_of[query] for query in to_buy if query.kind == "image")),
    )


def purchase_order(
    prompts: Sequence[Query],
    images: Sequence[Query],
    strata: Sequence[Stratum],
    *,
    seed: int,
    select: SelectionStrategy,
    features: NDArray[np.float32] | None = None,
    views: Sequence[Sequence[Query]] = (),
) -> list[Query]:
    """Every distinct query in the order of purchase: prompts, images, then rounds of one view an image each.

    The arguments are those of `plan_purchase`.
    """
    turns = image_order(select, strata, seed, features)
    rounds = zip_longest(*(views[turn] for turn in turns)) if views else ()
    further = (view for each in rounds for view in each if view is not None)
    return list(dict.fromkeys([*prompts, *(images[turn] for turn in turns), *further]))


def affordable(wanted: Sequence[Query], budget: Budget, prices: Prices) -> Sequence[Query]:
    """The longest prefix that the budget allows."""
    trial = Budget(budget.queries, budget.max_spend_micros, spent=budget.spent)
    for count, query in enumerate(wanted):
        if not trial.reserve(price([query], prices)):
            return wanted[:count]
    return wanted
