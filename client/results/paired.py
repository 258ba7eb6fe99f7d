"""Differences between methods, in pairs of runs with the same held-out domain and seed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

_DRAWS = 10_000


@dataclass(frozen=True)
class Difference:
    """How far a method is ahead of another.

    Attributes:
        method: its name.
        beside: that of the other.
        mean: the mean over domains of the mean over seeds, in points of accuracy.
        interval: the 95% interval of `mean`, by resampling domains, and seeds within each (hierarchical
            bootstrap, percentiles of 10,000 draws); `None` of fewer than two domains or two seeds.
        wins: in how many pairs it is ahead.
        pairs: how many there are.
    """

    method: str
    beside: str
    mean: float
    interval: tuple[float, float] | None
    wins: int
    pairs: int

    @property
    def described(self) -> str:
        """In a clause."""
        within = "" if self.interval is None else f", {self.interval[0]:+.1f} to {self.interval[1]:+.1f}"
        return f"{self.method} {self.mean:+.1f} ({self.wins} of {self.pairs} pairs{within})"


# The accuracy of a run, from 0 to 1, by its domain and seed.
Runs = Mapping[tuple[str, int], float]


def difference(method: str, runs: Runs, beside: str, others: Runs) -> Difference | None:
    """The difference of two methods, over the pairs that both have; `None` without any."""
    points: dict[str, list[float]] = {}
    for (domain, seed), share in runs.items():
        if (domain, seed) in others:
            points.setdefault(domain, []).append(100 * (share - others[domain, seed]))
    if not points:
        return None
    flat = [each for domain in points.values() for each in domain]
    return Difference(
        method=method,
        beside=beside,
        mean=float(np.mean([np.mean(each) for each in points.values()])),
        interval=_interval(list(points.values())),
        wins=sum(each > 0 for each in flat),
        pairs=len(flat),
    )


def _interval(points: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """The interval of the mean over domains, each with its seeds; the same whenever it is asked."""
    if len(points) < 2 or min(map(len, points)) < 2:
        return None
    chance = np.random.default_rng(0)
    drawn = [
        np.asarray(each)[chance.integers(len(each), size=(_DRAWS, len(points), len(each)))].mean(2)
        for each in points
    ]
    domains = chance.integers(len(points), size=(_DRAWS, len(points)))
    means = np.stack(drawn)[domains, np.arange(_DRAWS)[:, None], np.arange(len(points))].mean(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)
