"""Calibration against a case worked out by hand."""

import pytest

from client.results.calibration import calibration
from client.results.predictions import LabelledPrediction


def _answers(*pairs: tuple[float, bool]) -> list[LabelledPrediction]:
    return [
        LabelledPrediction("", "", True, "a", "a" if right else "b", confidence)
        for confidence, right in pairs
    ]


def test_the_error_is_the_mean_distance_between_confidence_and_accuracy() -> None:
    # (8/15, 0.6]: 0.6 and 0.56 sure, one of two right; (14/15, 1]: 0.95, 1 and 1 sure, two of three right.
    found = calibration(_answers((0.6, True), (0.56, False), (0.95, True), (1.0, True), (1.0, False)))
    first, second = found.bins
    assert (first.low, first.high, first.count) == (8 / 15, 0.6, 2)
    assert first.confidence == pytest.approx(0.58)
    assert first.accuracy == 0.5
    assert second.count == 3
    assert found.error == pytest.approx(0.4 * 0.08 + 0.6 * (2.95 / 3 - 2 / 3))


def test_edges_belong_to_the_bin_below_and_nothing_has_no_error() -> None:
    found = calibration(_answers((0.0, False), (0.2, True), (0.4, True)))
    assert [(each.low, each.count) for each in found.bins] == [(0.0, 1), (2 / 15, 1), (5 / 15, 1)]
    assert calibration([]).error == 0.0
