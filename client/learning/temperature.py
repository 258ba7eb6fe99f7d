"""Temperature scaling: one number divides the class scores, so that confidence fits accuracy."""

from bisect import bisect_left
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from client.learning.scores import in_double

# From ten times as sure as its scores say to a hundredth; neighbours differ by two per cent.
_CANDIDATES: list[float] = torch.logspace(-1, 2, 351).tolist()
# More images than these change nothing but the time that it takes.
_MOST = 10_000


def evenly(rows: Tensor) -> Tensor:
    """Some of very many rows, evenly spread: as many as a temperature is fitted by."""
    return rows[:: max(1, -(-len(rows) // _MOST))]


def fitted_temperature(scores: Tensor, labels: Tensor) -> float:
    """The temperature T for which softmax(scores / T) fits labels best (Guo et al., ICML 2017, section 4.2).

    It has the least cross-entropy of all candidates, and no class overtakes another by it. Every image counts
    alike, whatever its domain: no weights are chosen by it. Of very many, it looks at some, evenly spread.

    Where n images are all right, cross-entropy falls without end as T falls. So T is at least so high that
    the mean confidence in n images is at most (n + 1) / (n + 2), Platt's target of n right answers (Advances
    in Large Margin Classifiers, 1999).

    Args:
        scores: of images that were not trained on, shape (n, classes).
        labels: their classes, shape (n,), int64.
    """
    scores, labels = evenly(scores), evenly(labels)
    images, last = len(scores), len(_CANDIDATES) - 1

    @cache
    def misfit(candidate: int) -> float:
        temperature = _CANDIDATES[candidate]
        return sum(
            functional.cross_entropy(exact / temperature, of_these, reduction="sum").item() / images
            for exact, of_these in in_double(scores, labels)
        )

    def confidence(candidate: int) -> float:
        temperature = _CANDIDATES[candidate]
        return sum(
            (exact / temperature).softmax(dim=1).amax(dim=1).sum().item() / images
            for exact, _ in in_double(scores, labels)
        )

    # Cross-entropy is convex in 1 / T and confidence falls as T rises, so both are found by halving.
    best = bisect_left(range(last), True, key=lambda each: misfit(each) <= misfit(each + 1))
    most = (images + 1) / (images + 2)
    return _CANDIDATES[bisect_left(range(last), True, lo=best, key=lambda each: confidence(each) <= most)]
