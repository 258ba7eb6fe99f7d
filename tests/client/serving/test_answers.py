"""The student's answer about an image, and the vendor's."""

import numpy as np
import pytest

from client.serving.answers import TEACHER_WEIGHT, Answer, combined, teacher_probabilities


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_together_the_vendor_decides_on_rejection_and_the_student_on_exactness(
    kind: type[np.floating],
) -> None:
    own = Answer(np.array([0.9, 0.1], kind), "student", rejected=True)
    vendor = Answer(np.array([0.1, 0.9]), "vendor", cost_micros=100)
    both = own.with_vendor(vendor)
    assert (both.answered_by, both.cost_micros, both.rejected) == ("vendor", 100, False)
    assert both.probabilities.dtype == kind
    assert 0.5 < both.probabilities[1] < 0.9


def test_the_teachers_answer_is_the_softmax_of_its_cosines() -> None:
    texts = np.array([[1, 0], [0, 1]], np.float32)
    images = np.array([[0.8, 0.6], [0, 1]], np.float32)
    found = teacher_probabilities(images, texts, temperature=20.0)
    odds = np.exp(100 * (0.8 - 0.6) / 20)
    assert found[0] == pytest.approx([odds / (1 + odds), 1 / (1 + odds)], rel=1e-6)
    assert found.sum(axis=1) == pytest.approx([1, 1])


def test_both_together_are_the_weighted_geometric_mean() -> None:
    student, teacher = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.6, 0.3]])
    means = [
        s ** (1 - TEACHER_WEIGHT) * t**TEACHER_WEIGHT for s, t in zip(student[0], teacher[0], strict=True)
    ]
    assert combined(student, teacher)[0] == pytest.approx([each / sum(means) for each in means])


def test_whoever_is_sure_decides_and_certainty_breaks_nothing() -> None:
    sure, unsure = np.array([[1.0, 0.0]]), np.array([[0.4, 0.6]])
    assert combined(sure, unsure).argmax() == 0
    assert combined(unsure, sure).argmax() == 0
    assert np.isfinite(combined(sure, np.array([[0.0, 1.0]]))).all()
