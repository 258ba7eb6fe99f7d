"""Thresholds that turn away no more than a chosen share of known things, and what there is none for."""

import numpy as np
import pytest

from client.errors import UsageError
from client.learning.rejection import Rejection, Thresholds, shows_none, sureness
from client.learning.student_metadata import StudentMetadata


def _told(student: np.ndarray, teacher: np.ndarray | None = None) -> StudentMetadata:
    return StudentMetadata(
        rejection=Rejection.of(student),
        teacher_rejection=None if teacher is None else Rejection.of(teacher),
    )


def test_a_threshold_is_a_score_that_so_many_lie_below() -> None:
    found = Rejection.of(np.arange(99.0)[::-1])
    assert found.threshold(0.05) == 4  # the fifth lowest: four of 99 lie below it, and of 100 five would
    assert found.threshold(0.059) == 4
    assert found.threshold(0.29) == 28
    assert found.threshold(0.5) == 49
    assert Rejection.from_json(found.to_json()) == found


@pytest.mark.parametrize("count", [39, 120, 1000])
def test_of_new_images_like_those_of_before_no_larger_share_is_turned_away(count: int) -> None:
    rng = np.random.default_rng(count)
    shares = []
    for _ in range(1000):
        threshold = Rejection.of(rng.normal(size=count)).threshold(0.05)
        assert threshold is not None
        shares.append((rng.normal(size=200) < threshold).mean())
    expected = (count + 1) // 20 / (count + 1)
    assert expected <= 0.05
    assert np.mean(shares) == pytest.approx(expected, abs=0.004)


def test_equal_scores_are_all_kept_whatever_their_last_digits() -> None:
    sure = np.full(200, np.float32(0.9999997))
    threshold = Rejection.of(sure).threshold(0.5)
    assert threshold is not None
    assert not (sure < threshold).any()


def test_images_of_high_entropy_show_none() -> None:
    probabilities = np.array([[0.5, 0.5], [0.1, 0.9], [0.0, 1.0]], np.float32)
    bits = 0.1 * np.log2(10) + 0.9 * np.log2(1 / 0.9)  # of one that there can be
    assert sureness(probabilities) == pytest.approx([0, 1 - bits, 1], abs=1e-6)
    assert sureness(np.array([[0.5, 0.5, 0.0]])) == pytest.approx([1 - np.log(2) / np.log(3)])
    assert sureness(np.ones((1, 1))).tolist() == [1]
    own = sureness(probabilities)
    assert shows_none(probabilities, own[1]).tolist() == [True, False, False]
    assert not shows_none(probabilities, Thresholds().student).any()
    assert shows_none(np.zeros((0, 2)), 0.7).shape == (0,)


def test_a_file_tells_the_thresholds_of_student_and_teacher() -> None:
    told = _told(np.arange(99.0), np.arange(99.0) - 50)
    assert told.thresholds(0.1, asks=True) == Thresholds(9.0, -41.0)
    assert told.thresholds(0.1, asks=False) == Thresholds(9.0, -np.inf)
    assert StudentMetadata().thresholds(None, asks=True) == Thresholds()


@pytest.mark.parametrize(
    ("told", "rate", "words"),
    [
        (StudentMetadata(), 0.05, "none of its classes: no image was held out"),
        (_told(np.arange(99.0)), 0.05, "the teacher was asked about no labelled image"),
        (_told(np.arange(9.0)), 0.05, "hold-outs were too few for .* below 0.1"),
        (_told(np.arange(99.0), np.zeros(0)), 0.05, "asked about were too few for"),
    ],
)
def test_what_there_is_no_threshold_for_is_said(told: StudentMetadata, rate: float, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        told.thresholds(rate, asks=True)
