"""The answer about one image, and what becomes of the student's where the vendor answers too."""

from dataclasses import dataclass, replace
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from client.deferral.combination import combined

AnsweredBy = Literal["student", "cache", "vendor"]


@dataclass(frozen=True)
class Answer:
    """What is said of an image.

    Attributes:
        probabilities: how likely each class is, shape (classes,).
        answered_by: "student", or who answered with it: "cache" or "vendor".
        cost_micros: what it cost, in millionths of the vendor's currency unit.
        rejected: whether the image shows none of the classes.
    """

    probabilities: NDArray[np.floating]
    answered_by: AnsweredBy
    cost_micros: int = 0
    rejected: bool = False

    def with_vendor(self, vendor: Self) -> Self:
        """The student's answer and the vendor's together, with probabilities as exact as the student's.

        The vendor decides whether an image shows none of the classes, for it tells that much better
        (benchmarks/notebook.md).
        """
        together = combined(self.probabilities[None], vendor.probabilities[None])[0]
        return replace(vendor, probabilities=together.astype(self.probabilities.dtype))
