"""The answer about one image: the student's, or that of student and vendor together."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from client.learning.recipe import LOGIT_SCALE

AnsweredBy = Literal["student", "cache", "vendor"]

# How much the teacher counts beside the student, from 0 to 1 (benchmarks/notebook.md).
TEACHER_WEIGHT = 0.7


@dataclass(frozen=True)
class Answer:
    """An answer about an image.

    Attributes:
        probabilities: how likely each class is, shape (classes,).
        answered_by: "student", or who answered with it: "cache" or "vendor".
        cost_micros: what it cost, in millionths of the vendor's currency unit.
        rejected: whether it is answered that the image shows none of the classes.
        is_noise: whether the vendor sees none of them in it, whatever is answered.
    """

    probabilities: NDArray[np.floating]
    answered_by: AnsweredBy
    cost_micros: int = 0
    rejected: bool = False
    is_noise: bool = False

    def with_vendor(self, vendor: Self) -> Self:
        """The student's answer and the vendor's together, with probabilities as exact as the student's.

        The vendor decides whether an image shows none of the classes, for it tells that much better
        (benchmarks/notebook.md).
        """
        together = combined(self.probabilities[None], vendor.probabilities[None])[0]
        return replace(vendor, probabilities=together.astype(self.probabilities.dtype))


def teacher_probabilities(
    images: NDArray[np.float32], texts: NDArray[np.float32], temperature: float
) -> NDArray[np.float64]:
    """The teacher's zero-shot answer: softmax(100 cos / temperature).

    Args:
        images: unit embeddings of images, shape (n, d).
        texts: unit embeddings of the class prompts, shape (classes, d).
        temperature: fitted on images whose labels are known (`fitted_temperature`).

    Returns:
        shape (n, classes).
    """
    return _softmax(LOGIT_SCALE / temperature * (images.astype(np.float64) @ texts.T.astype(np.float64)))


def combined(student: NDArray[np.floating], teacher: NDArray[np.floating]) -> NDArray[np.float64]:
    """Combine both in a logarithmic opinion pool: student^(1 - w) x teacher^w, normalised.

    The teacher counts more (w is `TEACHER_WEIGHT`), for the student is surer than it should be of images
    unlike those that it learnt from.

    Args:
        student: probabilities, shape (n, classes).
        teacher: probabilities, shape (n, classes).

    Returns:
        shape (n, classes).
    """
    logs = [np.log(np.maximum(each.astype(np.float64), 1e-12)) for each in (student, teacher)]
    return _softmax((1 - TEACHER_WEIGHT) * logs[0] + TEACHER_WEIGHT * logs[1])


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares
