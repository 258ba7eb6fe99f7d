"""What to buy, in which order, and when to stop."""

import random
import threading
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from client.buying.queries import Query
from shared.embeddings import Prices

Stratum = tuple[str, str]


class Budget:
    """How many queries a run may still pay for. Thread-safe; what is in flight counts as paid.

    `limit` is the run's own, over all its resumptions; `None` is no limit. `spent` is what was paid before.
    """

    def __init__(self, limit: int | None, *, spent: int = 0) -> None:
        self.limit = limit
        self._spent = spent
        self._reserved = 0
        self._lock = threading.Lock()

    @property
    def spent(self) -> int:
        """Queries paid for by the run so far."""
        return self._spent

    @property
    def left(self) -> int | None:
        """Queries that may still be reserved; `None` where there is no limit."""
        return None if self.limit is None else max(0, self.limit - self._spent - self._reserved)

    def reserve(self, queries: int) -> int:
        """Set queries aside before they are sent; returns how many of them the budget allows."""
        with self._lock:
            left = self.left
            granted = queries if left is None else min(queries, left)
            self._reserved += granted
            return granted

    def settle(self, reserved: int, *, paid: int) -> None:
        """What was reserved is answered: `paid` queries of it were charged, the rest is free again."""
        with self._lock:
            self._reserved -= reserved
            self._spent += paid


@dataclass(frozen=True)
class Plan:
    """What a run needs, has and would buy.

    Attributes:
        prompts: class prompts needed.
        images: image queries needed, one a training image.
        duplicates: images whose bytes another one already has: bought once.
        cached: distinct queries that the cache answers.
        to_buy: the rest in the order of purchase, as far as the budget reaches.
        unaffordable: queries that the budget does not reach.
        cost_micros: the price of `to_buy`, in millionths of the vendor's currency unit.
        by_stratum: how many images of each (domain, class) are in `to_buy`.
    """

    prompts: int
    images: int
    duplicates: int
    cached: int
    to_buy: tuple[Query, ...]
    unaffordable: int
    cost_micros: int
    by_stratum: dict[Stratum, int]

    def to_json(self) -> dict[str, Any]:
        """The counts and the price; of what would be bought, how many by domain and class."""
        by_domain: dict[str, dict[str, int]] = {}
        for (domain, name), count in sorted(self.by_stratum.items()):
            by_domain.setdefault(domain, {})[name] = count
        return {
            "prompts": self.prompts,
            "images": self.images,
            "duplicates": self.duplicates,
            "cached": self.cached,
            "to_buy": len(self.to_buy),
            "unaffordable": self.unaffordable,
            "cost_micros": self.cost_micros,
            "to_buy_by_domain_and_class": by_domain,
        }


def plan_purchase(
    prompts: Sequence[Query],
    images: Sequence[Query],
    strata: Sequence[Stratum],
    *,
    cached: Collection[Query],
    budget_left: int | None,
    prices: Prices,
    seed: int,
) -> Plan:
    """Class prompts first; then the images, each (domain, class) in turn, so that any prefix is balanced.

    The order follows the seed and not the cache: a resumed run goes on where it stopped.

    Args:
        prompts: one query a class.
        images: one query a training image.
        strata: (domain, class) of each image.
        cached: queries that need not be bought.
        budget_left: how many may be bought; `None` for all.
        prices: of one query of each kind.
        seed: of the order within and among strata.
    """
    order = list(dict.fromkeys([*prompts, *_in_turns(images, strata, seed)]))
    wanted = [query for query in order if query not in cached]
    to_buy = wanted[:budget_left]
    stratum_of = dict(zip(images, strata, strict=True))
    kinds = Counter(query.kind for query in to_buy)
    return Plan(
        prompts=len(prompts),
        images=len(images),
        duplicates=len(prompts) + len(images) - len(order),
        cached=len(order) - len(wanted),
        to_buy=tuple(to_buy),
        unaffordable=len(wanted) - len(to_buy),
        cost_micros=prices.cost_micros(images=kinds["image"], texts=kinds["text"]),
        by_stratum=dict(Counter(stratum_of[query] for query in to_buy if query.kind == "image")),
    )


def _in_turns(images: Sequence[Query], strata: Sequence[Stratum], seed: int) -> list[Query]:
    """The images in rounds: one of every stratum, then a second one of each that has it, and so on."""
    rng = random.Random(f"purchase:{seed}")
    members: dict[Stratum, list[Query]] = {}
    for image, stratum in zip(images, strata, strict=True):
        members.setdefault(stratum, []).append(image)
    names = sorted(members)
    rng.shuffle(names)
    queues = [rng.sample(members[name], len(members[name])) for name in names]
    rounds = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
