"""Which images the vendor is asked about: those of which the student is least sure."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from client.errors import UsageError
from client.learning.reliability import Reliability, of_student
from client.learning.student_metadata import StudentMetadata

# The threshold follows so many of the latest images.
WINDOW = 1000
# So many more than its share of the images seen may be asked about at any moment.
BURST = 20


def sure_of(confidence: NDArray[np.float32], rejected: NDArray[np.bool_]) -> NDArray[np.float32]:
    """What images are chosen by, shape (n,): those that seem to show no class come before all others.

    Args:
        confidence: how sure the student is of each, shape (n,), from 0 to 1.
        rejected: which seem to show none of its classes, shape (n,).
    """
    return confidence - rejected.astype(np.float32)


class Selection(Protocol):
    """Says of image after image whether the vendor is asked about it."""

    def choose(self, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Of some images, in the order in which they came; both of shape (n,)."""


class Below:
    """Asks about every image of which the student is less sure than a bound; the rate follows the images."""

    def __init__(self, bound: float) -> None:
        """Take a bound.

        Args:
            bound: confidence, from 0 to 1.
        """
        self.bound = bound

    def choose(self, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Those below the bound, shape (n,)."""
        return confidence < self.bound


class ShareOfTraffic:
    """Asks about a share of a stream of images, the least sure of those that came lately.

    The threshold is the quantile of the latest `WINDOW` confidences, so it follows images that become harder
    or easier. Before any have come, it is that of the hold-outs. Whatever comes, after n images at most
    `share` x n + `BURST` were asked about.
    """

    def __init__(self, share: float, expected: Iterable[float] = ()) -> None:
        """Start a stream.

        Args:
            share: of the images, from 0 to 1.
            expected: confidences to begin with: those of hold-outs.
        """
        self._share = share
        self._latest = deque(expected, maxlen=WINDOW)
        self._allowance = float(BURST) if share else 0.0

    @property
    def threshold(self) -> float:
        """The confidence up to which an image is asked about now."""
        return float(np.quantile(self._latest, self._share)) if self._latest else 0.0

    def choose(self, confidence: NDArray[np.float32]) -> NDArray[np.bool_]:
        """The unsure ones among some images, shape (n,), as far as the share allows."""
        self._latest.extend(float(each) for each in confidence)
        unsure = confidence <= self.threshold  # equals too, or of a stream that is all alike none would be
        asked = np.zeros(len(confidence), np.bool_)
        for position, is_unsure in enumerate(unsure):
            self._allowance = min(BURST, self._allowance + self._share)
            if is_unsure and self._allowance >= 1:
                self._allowance -= 1
                asked[position] = True
        return asked


def least_sure(confidence: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """The least sure share of images that are all known, shape (n,); of equals, the first."""
    asked = np.zeros(len(confidence), np.bool_)
    count = int(round(share * len(confidence), 6))  # 0.29 x 100 is 28.999999999999996
    asked[np.argsort(confidence, kind="stable")[:count]] = True
    return asked


def for_stream(
    student: StudentMetadata, *, share: float | None, below: float | None, accuracy: float | None
) -> Selection:
    """The selection for images that come one after the other.

    Args:
        student: what its file says.
        share: of the images; one of the three is given.
        below: confidence, from 0 to 1.
        accuracy: that is wanted on images like the hold-outs.

    Raises:
        UsageError: as by `share_for`.
    """
    if below is not None:
        return Below(below)
    found = share_for(student, accuracy) if accuracy is not None else share or 0.0
    hold_outs = Reliability.from_json(student.reliability or "[]")
    return ShareOfTraffic(found, hold_outs.confidence)  # few, so that what comes soon counts for more


def share_for(student: StudentMetadata, accuracy: float) -> float:
    """The share to ask about that gave an accuracy on the hold-outs.

    Args:
        student: what its file says.
        accuracy: that is wanted, from 0 to 1.

    Raises:
        UsageError: the file does not tell, or no share reaches it.
        ClientError: the file is damaged.
    """
    known = of_student(student)
    if known is None:
        raise UsageError(
            "The student's file does not tell how right student and teacher were on hold-outs (an earlier "
            "version of Tuition wrote it, there were too few, or its method asked by other class texts): say "
            "a share, or a bound."
        )
    hold_outs, teacher = known
    share = hold_outs.share_for(accuracy, teacher)
    if share is None:
        raise UsageError(
            f"No share reaches an accuracy of {100 * accuracy:.1f}%: on images with labels, the teacher was "
            f"right about {100 * teacher:.1f}%."
        )
    return share
