"""How class scores do on held-out images."""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor
from torch.nn import functional

# Of more scores than these, some rows are taken at a time: 32 MiB as doubles.
_SCORES_AT_ONCE = 2**22


@dataclass(frozen=True)
class Score:
    """Accuracy (share of 1) and cross-entropy on the hold-outs, each the mean over source domains."""

    accuracy: float
    loss: float


def score(logits: Tensor, labels: Tensor, domains: Tensor) -> Score:
    """The score of class scores: each domain counts alike, however many images it has (as in DomainBed).

    Args:
        logits: class scores, shape (n, classes).
        labels: class of each image, shape (n,), int64.
        domains: domain of each image, shape (n,), int64.
    """
    pieces = [
        (exact.argmax(dim=1) == of_these, functional.cross_entropy(exact, of_these, reduction="none"))
        for exact, of_these in in_double(logits, labels)
    ]
    right, losses = torch.cat([each for each, _ in pieces]).double(), torch.cat([each for _, each in pieces])
    members = [domains == domain for domain in sorted(set(domains.tolist()))]
    return Score(
        accuracy=fmean(right[rows].mean().item() for rows in members),
        loss=fmean(losses[rows].mean().item() for rows in members),
    )


def in_double(scores: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores as doubles and their labels, some rows at a time: thousands of classes would take gigabytes."""
    rows = max(1, _SCORES_AT_ONCE // scores.shape[1])
    for some, of_these in zip(torch.split(scores, rows), torch.split(labels, rows), strict=True):
        yield some.double(), of_these
