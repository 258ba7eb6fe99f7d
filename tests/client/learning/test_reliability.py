"""Confidence and accuracy by groups, and what is expected of asking about the least sure."""

import numpy as np
import pytest

from client.learning.reliability import Reliability


def test_groups_go_from_the_least_sure_to_the_surest() -> None:
    confidence = np.array([0.9, 0.1, 0.5, 0.3])
    found = Reliability.of(confidence, np.array([True, False, True, False]))
    assert found == Reliability((0.1, 0.3, 0.5, 0.9), (0.0, 0.0, 1.0, 1.0), (1, 1, 1, 1))
    assert Reliability.from_json(found.to_json()) == found
    assert found.least_sure(0.25) == (0.3, 0.0)
    assert found.least_sure(0.75) == pytest.approx((0.9, 1 / 3))
    assert found.least_sure(1.0) == (1.0, 0.5)


@pytest.mark.parametrize("count", [7, 53, 99, 341])
def test_groups_that_are_not_of_one_size_count_as_what_they_hold(count: int) -> None:
    rng = np.random.default_rng(count)
    confidence, right = rng.random(count), rng.random(count) < 0.6
    assert Reliability.of(confidence, right).least_sure(1.0)[1] == pytest.approx(right.mean(), abs=1e-5)


def test_many_hold_outs_are_told_in_few_numbers() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    found = Reliability.of(confidence, rng.random(100_000) < confidence)
    assert len(found.confidence) == 50
    assert np.abs(np.array(found.confidence) - np.array(found.accuracy)).max() < 0.05
    assert len(found.to_json()) < 2500
