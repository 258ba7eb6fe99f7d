"""The share of a stream that is asked about is held, whatever comes; the least sure are asked about."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.serving.answers import Answer
from client.serving.selection import BURST, WINDOW, ShareOfTraffic, least_sure, sure_of


@given(
    share=st.floats(0, 1),
    expected=st.lists(st.floats(0, 1), max_size=50),
    batches=st.lists(st.lists(st.floats(0, 1, width=32), max_size=64), max_size=40),
)
def test_no_stream_is_asked_about_beyond_its_share_and_a_burst(
    share: float, expected: list[float], batches: list[list[float]]
) -> None:
    stream = ShareOfTraffic(share, expected)
    seen = asked = 0
    for batch in batches:
        asked += int(stream.choose(np.array(batch, np.float32)).sum())
        seen += len(batch)
        assert asked <= share * seen + BURST + 1e-6


def _asked(stream: ShareOfTraffic, confidence: np.ndarray) -> np.ndarray:
    return np.concatenate([stream.choose(chunk) for chunk in np.array_split(confidence, 200)])


def test_images_that_become_harder_do_not_raise_the_rate_and_easier_ones_do_not_end_it() -> None:
    rng = np.random.default_rng(0)
    hold_outs = rng.beta(8, 2, 500)
    stream = ShareOfTraffic(0.2, hold_outs)
    for alpha, beta in ((8, 2), (2, 2), (20, 1)):
        confidence = rng.beta(alpha, beta, 4 * WINDOW).astype(np.float32)
        asked = _asked(stream, confidence)[WINDOW:]  # by then the threshold has followed
        assert 0.17 < asked.mean() < 0.23
        assert confidence[WINDOW:][asked].max() < np.quantile(confidence, 0.3)


def test_what_was_not_asked_about_in_quiet_times_is_not_made_up_for() -> None:
    stream = ShareOfTraffic(0.1, [0.4])
    surer = np.linspace(0.5, 1, 5000, dtype=np.float32)
    assert not any(stream.choose(each).any() for each in surer.reshape(-1, 1))
    assert stream.choose(np.linspace(0.5, 0.4, 100, dtype=np.float32)).sum() <= BURST + 10


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_images_of_which_a_student_is_equally_sure_are_asked_about_at_the_share(share: float) -> None:
    stream = ShareOfTraffic(share, [0.5, 0.9, 0.97])
    asked = _asked(stream, np.full(5000, 0.97, np.float32))
    assert share * 5000 <= asked.sum() <= (share * 5000 + BURST if share else 0)


def test_before_anything_has_come_the_threshold_is_that_of_the_hold_outs() -> None:
    stream = ShareOfTraffic(0.5, [0.2, 0.4, 0.6, 0.8])
    assert stream.threshold == pytest.approx(0.5)
    assert stream.choose(np.array([0.9, 0.1], np.float32)).tolist() == [False, True]


def test_images_that_seem_to_show_no_class_are_asked_about_before_all_others() -> None:
    confidence = (0.5, 0.9, 0.3, 0.8, 0.4)
    answers = [
        Answer(np.array([sure, 0.1], np.float32), "student", rejected=number in (1, 3))
        for number, sure in enumerate(confidence)
    ]
    sure = sure_of(answers)
    assert np.argsort(sure).tolist() == [3, 1, 2, 4, 0]
    assert np.nonzero(least_sure(sure, 0.6))[0].tolist() == [1, 2, 3]
    assert ShareOfTraffic(0.2, confidence).choose(sure).tolist() == [False, True, False, True, False]
    assert sure_of([]).shape == (0,)


def test_of_images_that_are_all_known_exactly_the_share_is_asked_about() -> None:
    confidence = np.array([0.5, 0.1, 0.5, 0.9, 0.3], np.float32)
    assert np.nonzero(least_sure(confidence, 0.6))[0].tolist() == [0, 1, 4]
    assert not least_sure(confidence, 0.19).any()
    assert least_sure(confidence, 1.0).all()
    assert least_sure(np.zeros(0, np.float32), 0.5).shape == (0,)
    for percent in range(101):
        assert least_sure(np.zeros(100, np.float32), percent / 100).sum() == percent
