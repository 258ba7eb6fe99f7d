"""Paired differences between methods, and their intervals over domains and seeds."""

from itertools import product

import numpy as np
import pytest

from client.results.comparison_table import differences_of
from client.results.paired import difference
from client.results.run_result import RunResult

DOMAINS = ("colour", "emoji", "line", "pixel", "solid")


def _runs(points: dict[str, tuple[float, ...]]) -> dict[tuple[str, int], float]:
    return {(domain, seed): each / 100 for domain, of in points.items() for seed, each in enumerate(of)}


def test_the_mean_is_over_domains_and_wins_are_of_pairs() -> None:
    base = _runs({"a": (50, 50), "b": (50, 50)})
    found = difference("ours", _runs({"a": (52, 54), "b": (49, 50), "c": (99, 99)}), "free", base)
    assert found is not None
    assert found.mean == pytest.approx((3 - 0.5) / 2)
    assert (found.wins, found.pairs) == (2, 4)
    assert difference("ours", _runs({"c": (1,)}), "free", base) is None


def test_few_domains_or_seeds_have_no_interval() -> None:
    few: list[dict[str, tuple[float, ...]]] = [{"a": (52, 54)}, {"a": (52,), "b": (51,)}]
    for points in few:
        found = difference("ours", _runs(points), "free", _runs(dict.fromkeys(points, (50, 50))))
        assert found is not None
        assert found.interval is None


def test_the_interval_is_that_of_domains_drawn_with_their_seeds() -> None:
    chance = np.random.default_rng(1)
    truth = {name: 2 + 3 * chance.standard_normal() for name in DOMAINS}
    points = {name: tuple(truth[name] + chance.standard_normal(3)) for name in DOMAINS}
    found = difference("ours", _runs(points), "free", _runs(dict.fromkeys(DOMAINS, (0.0, 0.0, 0.0))))
    assert found is not None
    assert found.interval is not None

    by_hand = []  # drawn one by one
    for _ in range(4000):
        drawn = [points[DOMAINS[at]] for at in chance.integers(5, size=5)]
        by_hand.append(np.mean([np.mean([each[at] for at in chance.integers(3, size=3)]) for each in drawn]))
    assert found.interval == pytest.approx(tuple(np.percentile(by_hand, (2.5, 97.5))), abs=0.25)
    over_seeds_alone = np.std([np.mean(points[name]) - truth[name] for name in DOMAINS]) / 5**0.5
    assert found.interval[1] - found.interval[0] > 4 * over_seeds_alone


def test_students_stand_beside_the_best_that_asks_nothing() -> None:
    shares = {"erm": 0.5, "label-only": 0.6, "ours": 0.65, "zero-shot": 0.9}
    results = [
        RunResult(method, target, seed, 0.9, share, queries, 0, 1.0, is_teacher=method == "zero-shot")
        for (method, share), target, seed in product(shares.items(), "ab", (0, 1))
        for queries in [100 * (method in ("ours", "zero-shot"))]
    ]
    told = {each.method: each for each in differences_of(results)}
    assert set(told) == {"erm", "ours"}
    assert all(each.beside == "label-only" for each in told.values())
    assert told["ours"].mean == pytest.approx(5)
    assert told["ours"].interval == pytest.approx((5, 5))
    assert told["ours"].described == "ours +5.0 (4 of 4 pairs, +5.0 to +5.0)"
    paid = [each for each in results if each.queries]
    assert differences_of(paid) == []  # the teacher is no student
