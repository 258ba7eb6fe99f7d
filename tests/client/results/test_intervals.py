"""Intervals of accuracies that were measured on few images."""

import math
from statistics import NormalDist

import pytest

from client.results.intervals import (
    coin_tosses,
    images_to_tell,
    in_percent,
    interval_of,
    interval_of_mean,
    wilson,
)


@pytest.mark.parametrize(
    ("right", "images", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_a_share_has_the_interval_of_the_literature(right: int, images: int, low: float, high: float) -> None:
    """Newcombe (Statistics in Medicine 1998), table I, method 3."""
    assert wilson(right / images, images) == pytest.approx((low, high), abs=6e-5)
    mirrored = wilson(1 - right / images, images)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=6e-5)


def test_an_accuracy_of_many_images_needs_none() -> None:
    assert interval_of(0.5, 1000) is None
    assert interval_of(0.0, 0) is None
    assert in_percent(interval_of(0.5, 999)) == "46.9 to 53.1"
    assert in_percent(None) == ""


def test_a_mean_over_domains_is_surer_than_each_and_of_one_domain_as_sure() -> None:
    assert interval_of_mean([(0.8, 50)]) == pytest.approx(wilson(0.8, 50))
    found = interval_of_mean([(0.8, 50), (0.8, 50)])
    assert found is not None
    low, high = wilson(0.8, 50)
    assert found == pytest.approx((0.8 - (0.8 - low) / math.sqrt(2), 0.8 + (high - 0.8) / math.sqrt(2)))
    assert interval_of_mean([(0.5, 600), (0.5, 600)]) is None
    assert interval_of_mean([]) is None


def test_so_many_images_tell_on_which_side_of_a_line_a_share_is() -> None:
    assert images_to_tell(0.95, 100, 0.8) == 100  # told already
    assert images_to_tell(0.8, 100, 0.8) == math.inf
    needed = images_to_tell(0.75, 100, 0.8)
    assert 250 < needed < 350
    low, high = wilson(0.75, math.ceil(needed))
    assert not low <= 0.8 <= high


def test_coins_fall_as_unevenly_as_the_binomial_says() -> None:
    assert coin_tosses(0, 0) == 1
    assert coin_tosses(5, 5) == 1
    assert coin_tosses(0, 6) == pytest.approx(2 / 64)
    assert coin_tosses(60, 40) == pytest.approx(2 * NormalDist().cdf(-19 / 10), rel=0.02)
