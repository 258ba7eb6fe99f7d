"""In which order images are bought: the same every time, balanced, and spread where that is asked for."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from client.purchase.selection import SelectionStrategy, image_order


def _features(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 6)).astype(np.float32)


def _worst(features: NDArray[np.float32], taken: list[int]) -> float:
    """How far (1 - cosine) the image that is farthest from all that were taken is from them."""
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    return float(1 - (rows @ rows[taken].T).max(axis=1).min())


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=50),
    st.sampled_from(["stratified", "random", "coverage"]),
    st.integers(0, 3),
)
def test_every_image_comes_once_and_the_order_repeats_itself(
    strata: list[tuple[str, str]], select: SelectionStrategy, seed: int
) -> None:
    features = _features(len(strata))
    order = image_order(select, strata, seed, features)
    assert sorted(order) == list(range(len(strata)))
    assert order == image_order(select, strata, seed, features)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), min_size=1, max_size=50),
    st.integers(1, 50),
)
def test_coverage_is_balanced_too(strata: list[tuple[str, str]], prefix: int) -> None:
    bought = Counter(strata[i] for i in image_order("coverage", strata, 0, _features(len(strata)))[:prefix])
    rounds = max(bought.values())
    assert all(bought[stratum] >= min(size, rounds - 1) for stratum, size in Counter(strata).items())


def test_coverage_leaves_no_image_far_from_what_was_bought() -> None:
    """Most of two hundred images are alike: a draw misses the rare ones, coverage finds them at once."""
    rng = np.random.default_rng(0)
    centres = np.eye(6, dtype=np.float32)[rng.choice(6, size=200, p=[0.9, 0.02, 0.02, 0.02, 0.02, 0.02])]
    features = centres + 0.02 * rng.normal(size=centres.shape).astype(np.float32)
    strata = [("a", "x")] * 200
    covered = image_order("coverage", strata, 0, features)
    assert centres[covered[0]].tolist() == [1, 0, 0, 0, 0, 0]
    assert len({tuple(centres[i]) for i in covered[:6]}) == 6
    drawn = [_worst(features, image_order("stratified", strata, seed)[:6]) for seed in range(5)]
    assert _worst(features, covered[:6]) < 0.02 < min(drawn)


def test_images_that_look_alike_or_like_nothing_are_all_taken() -> None:
    features = np.zeros((5, 3), dtype=np.float32)
    features[:3] = [1, 2, 3]
    assert sorted(image_order("coverage", [("a", "x")] * 5, 0, features)) == list(range(5))


def test_coverage_without_features_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="features"):
        image_order("coverage", [("a", "x")], 0)
