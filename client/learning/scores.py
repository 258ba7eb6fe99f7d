"""How class scores do on held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

# Of more scores than these, some rows are taken at a time: 32 MiB as doubles.
_SCORES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Score:
    """Accuracy (share of 1) and cross-entropy on the hold-outs, each the mean over source domains.

    `halves` has the same of each half of them, where both have images.
    """

    accuracy: float
    loss: float
    halves: tuple["Score", ...] = ()


def score(logits: Tensor, labels: Tensor, domains: Tensor, halves: Tensor | None = None) -> Score:
    """The score of class scores: each domain counts alike, however many images it has (as in DomainBed).

    Args:
        logits: class scores, shape (n, classes).
        labels: class of each image, shape (n,), int64.
        domains: domain of each image, shape (n,), int64.
        halves: half of each image, 0 or 1, shape (n,), int64.
    """
    pieces = [
        (exact.argmax(dim=1) == of_these, functional.cross_entropy(exact, of_these, reduction="none"))
        for exact, of_these in in_double(logits, labels)
    ]
    right, losses = torch.cat([each for each, _ in pieces]).double(), torch.cat([each for _, each in pieces])
    parts = [] if halves is None else _members(halves)
    scored = [_mean_score(right[rows], losses[rows], domains[rows]) for rows in parts if len(parts) > 1]
    return replace(_mean_score(right, losses, domains), halves=tuple(scored))


def _mean_score(right: Tensor, losses: Tensor, domains: Tensor) -> Score:
    members = _members(domains)
    return Score(
        accuracy=fmean(right[rows].mean().item() for rows in members),
        loss=fmean(losses[rows].mean().item() for rows in members),
    )


def _members(groups: Tensor) -> list[Tensor]:
    return [groups == group for group in sorted(set(groups.tolist()))]


def in_double(scores: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores as doubles and their labels, some rows at a time: thousands of classes would take gigabytes."""
    rows = max(1, _SCORES_AT_ONCE // scores.shape[1])
    for some, of_these in zip(torch.split(scores, rows), torch.split(labels, rows), strict=True):
        yield some.double(), of_these
