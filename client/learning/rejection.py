"""When an image shows none of the classes: thresholds that turn away a chosen share of the hold-outs."""

import json
from dataclasses import dataclass
from math import floor, log
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError

# Rates are told in hundredths, up to a half.
LOWEST_RATE, HIGHEST_RATE = 0.01, 0.5
_RATES = 50
# A threshold that turns nothing away.
NEVER = -np.inf


def shows_none(probabilities: NDArray[np.floating], below: float) -> NDArray[np.bool_]:
    """Which images are taken to show none of the classes, shape (n,)."""
    return sureness(probabilities) < below


def sureness(probabilities: NDArray[np.floating]) -> NDArray[np.float64]:
    """How sure it is that images show a thing of some class, shape (n,), from 0 to 1.

    It is what the entropy of the probabilities lacks to the highest that there can be, as a share of that.
    """
    exact = probabilities.astype(np.float64)
    entropy: NDArray[np.float64] = -(exact * np.log(np.maximum(exact, 1e-12))).sum(axis=1)
    return 1 - entropy / log(max(2, exact.shape[1]))


@dataclass(frozen=True)
class Rejection:
    """Thresholds of a score by the share of known things that fall below them: the false rejects.

    Of images like those that the thresholds were fitted on, no larger share is expected to fall below them:
    with n images, the threshold is the k-th lowest score, k = floor(rate (n + 1)), as split conformal
    prediction has it (Vovk et al., 2005; Angelopoulos and Bates, 2021, section 1).

    Attributes:
        thresholds: of the rates 0.01, 0.02 ... `HIGHEST_RATE`; `None` where n is too small for a rate.
    """

    thresholds: tuple[float | None, ...]

    @classmethod
    def of(cls, scores: NDArray[np.floating]) -> Self:
        """Of the scores of known things, shape (n,): the surer, the higher."""
        ordered = np.sort(scores)
        ranks = [step * (len(ordered) + 1) // 100 for step in range(1, _RATES + 1)]
        return cls(tuple(_rounded_down(ordered[rank - 1]) if rank else None for rank in ranks))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: it is something else.
        """
        found = tuple(None if each is None else float(each) for each in json.loads(text))
        if len(found) != _RATES:
            raise ValueError(f"there is no threshold for each of {_RATES} rates")
        return cls(found)

    def to_json(self) -> str:
        """As the metadata of a student's file hold it."""
        return json.dumps(self.thresholds)

    @property
    def lowest_rate(self) -> float | None:
        """The lowest rate that has a threshold; `None` where none has."""
        return next((step / 100 for step, each in enumerate(self.thresholds, 1) if each is not None), None)

    def threshold(self, rate: float) -> float | None:
        """Below it an image is turned away; `None` where there were too few images for the rate.

        Args:
            rate: of false rejects, from `LOWEST_RATE` to `HIGHEST_RATE`; rounded down to hundredths.
        """
        return self.thresholds[floor(round(100 * rate, 6)) - 1]


def _rounded_down(score: np.floating) -> float:
    return floor(float(score) * 1e6) / 1e6


@dataclass(frozen=True)
class Thresholds:
    """Below which scores an image is taken to show none of the classes.

    Attributes:
        student: of the student's `sureness`.
        teacher: of the cosine of the teacher's embedding of it to the nearest class text.
    """

    student: float = NEVER
    teacher: float = NEVER

    @classmethod
    def of(
        cls, student: Rejection | None, teacher: Rejection | None, rate: float | None, *, asks: bool
    ) -> Self:
        """Those for a rate of false rejects, from `LOWEST_RATE` to `HIGHEST_RATE`; without one, none."""
        if rate is None:
            return cls()
        of_student = _threshold_of("student", student, rate)
        return cls(of_student, _threshold_of("teacher", teacher, rate) if asks else NEVER)


def _threshold_of(whose: Literal["student", "teacher"], found: Rejection | None, rate: float) -> float:
    if found is None:
        raise UsageError(_UNKNOWN[whose])
    threshold = found.threshold(rate)
    if threshold is None:
        lowest = found.lowest_rate
        possible = "any rate" if lowest is None else f"a rate of false rejects below {lowest:g}"
        raise UsageError(f"{_FITTED_ON[whose]} were too few for {possible}.")
    return threshold


_UNKNOWN = {
    "student": "The student's file does not tell when an image shows none of its classes: no "
    "image was held out. Distil again, or leave out --reject.",
    "teacher": "The student's file does not tell when its teacher sees none of the classes in an image: "
    "the teacher was asked about no labelled image, or the method asked "
    "by other class texts. Distil again, or leave out --reject or --ask-vendor.",
}
_FITTED_ON = {
    "student": "The hold-outs",
    "teacher": "The labelled images that the teacher was asked about",
}
