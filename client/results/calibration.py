"""Calibration: accuracy by confidence, and the expected calibration error."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil
from statistics import fmean

from client.results.predictions import LabelledPrediction

BINS = 15


@dataclass(frozen=True)
class Bin:
    """The predictions whose confidence is above `low` and at most `high`: shares from 0 to 1."""

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """Reliability by bins of confidence, those without predictions left out.

    Attributes:
        bins: from the lowest confidence to the highest.
        error: the expected calibration error (Guo et al., ICML 2017, eq. 3): the distance between confidence
            and accuracy, averaged over the predictions.
    """

    bins: list[Bin]
    error: float


def calibration(predictions: Iterable[LabelledPrediction]) -> Calibration:
    """The calibration of these predictions, over bins of equal width; 0 where there is none."""
    members: dict[int, list[LabelledPrediction]] = {}
    for prediction in predictions:
        number = min(BINS - 1, max(0, ceil(prediction.confidence * BINS) - 1))
        members.setdefault(number, []).append(prediction)
    filled = [
        Bin(
            number / BINS,
            (number + 1) / BINS,
            len(inside),
            fmean(prediction.confidence for prediction in inside),
            fmean(prediction.right for prediction in inside),
        )
        for number, inside in sorted(members.items())
    ]
    total = sum(each.count for each in filled)
    error = sum(each.count * abs(each.confidence - each.accuracy) for each in filled) / max(1, total)
    return Calibration(filled, error)
