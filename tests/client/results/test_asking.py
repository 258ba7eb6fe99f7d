"""What asking brings, by hand: accuracy, its interval, the worst class, and the price."""

import pytest

from client.learning.reliability import Reliability
from client.results.asking import (
    Right,
    WorstClass,
    asked_by_hold_outs,
    asked_by_share,
    mean_of,
    price_of_thousand,
)  # fmt: skip
from client.results.intervals import wilson
from client.results.predictions import LabelledPrediction


def _answers(label: str, right: int, images: int, confidence: float) -> list[LabelledPrediction]:
    said = [label] * right + ["other"] * (images - right)
    return [
        LabelledPrediction(f"{label}{n}", "d", True, label, each, confidence) for n, each in enumerate(said)
    ]


def test_the_least_sure_are_asked_about_first_and_the_worst_class_follows() -> None:
    """Of ten cats 2 are right and of ten dogs 9; cats are the least sure."""
    answers = [*_answers("cat", 2, 10, 0.3), *_answers("dog", 9, 10, 0.9), *_answers("rare", 0, 2, 0.95)]
    points = asked_by_share(answers, Right(0.8, 100, {"cat": 0.6}))
    alone, half, all_ = points[0], points[9], points[20]
    assert alone.accuracy == pytest.approx(11 / 22)
    assert alone.interval == pytest.approx(wilson(0.5, 22))
    assert alone.worst is not None
    assert (alone.worst.name, alone.worst.images) == ("cat", 10)
    assert alone.worst.accuracy == pytest.approx(0.2)
    assert half.worst is not None
    assert half.worst.accuracy == pytest.approx((9.9 * 0.6 + 0.1 * 0) / 10)  # 9.9 of the cats
    assert all_.interval == pytest.approx(wilson(0.8, 100))
    assert all_.accuracy == pytest.approx(0.8)
    assert [each.share for each in points][:3] == [0, 0.05, 0.1]


def test_hold_outs_of_a_file_say_the_same_but_for_classes() -> None:
    known = Reliability((0.3, 0.9), (0.2, 0.9), (10, 10))
    points = asked_by_hold_outs(known, Right(0.8))
    assert points[0].accuracy == pytest.approx(0.55)
    assert points[10].accuracy == pytest.approx(0.5 * 0.8 + 0.5 * 0.9)
    low, high = points[20].interval
    assert (low, high) == (0.8, 0.8)  # on how many images the teacher was measured is not known
    assert points[0].worst is None


@pytest.mark.parametrize(
    ("share", "micros", "currency", "said"),
    [(0.2, 100, "EUR", "0.0200 EUR"), (0.2, 100, None, "0.0200 units"), (0.2, None, None, "200 queries"),
     (0, 100, "EUR", "nothing")],
)  # fmt: skip
def test_the_price_of_a_thousand_images(
    share: float, micros: int | None, currency: str | None, said: str
) -> None:
    assert price_of_thousand(share, micros, currency) == said


def test_seeds_of_one_set_of_images_count_as_one_and_domains_as_two() -> None:
    once = _answers("cat", 6, 10, 0.5)
    (alone, *_), (twice, *_) = asked_by_share(once, Right(0.8)), asked_by_share(once * 2, Right(0.8), 2)
    assert twice.interval == pytest.approx(alone.interval)
    assert twice.worst == alone.worst
    other = asked_by_share(_answers("dog", 3, 10, 0.5), Right(0.8))[0]
    both = mean_of({"line": alone, "solid": other})
    assert both.accuracy == pytest.approx(0.45)
    assert alone.accuracy - alone.interval[0] > both.accuracy - both.interval[0] > 0
    assert both.worst == WorstClass("dog, solid", 0.3, 10)
