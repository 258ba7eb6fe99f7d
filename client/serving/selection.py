"""Which images the vendor is asked about: those of which the student is least sure."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from client.learning.student_metadata import StudentMetadata
from client.serving.answers import Answer

# How many of the latest images the threshold follows.
WINDOW = 1000
# How many images beyond its share of those seen may be asked about at any moment.
BURST = 20
_MOST_CALLERS = 256


def sure_of(answers: Sequence[Answer]) -> NDArray[np.float32]:
    """How sure the student is of each of its answers, shape (n,), at most 1.

    Images that seem to show no class come before all others, and are asked about first.
    """
    return np.array([each.probabilities.max() - each.rejected for each in answers], np.float32)


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

    @classmethod
    def of_student(cls, student: StudentMetadata, share: float) -> Self:
        """Start a stream of a student's, with how sure it is of its hold-outs."""
        known = student.reliability
        return cls(share, known.confidence if known else ())  # few, so that what comes soon counts for more

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


class CallersStreams:
    """A stream for each caller, so that nobody's images move another's threshold; the latest stay."""

    def __init__(self, begin: Callable[[], ShareOfTraffic]) -> None:
        self._begin = begin
        self._streams: dict[str, ShareOfTraffic] = {}

    def of(self, account: str) -> ShareOfTraffic:
        """The stream of a caller."""
        stream = self._streams.pop(account, None) or self._begin()
        self._streams[account] = stream
        if len(self._streams) > _MOST_CALLERS:
            self._streams.pop(next(iter(self._streams)))
        return stream


def least_sure(confidence: NDArray[np.float32], share: float) -> NDArray[np.bool_]:
    """The least sure share of images that are all known, shape (n,); of equals, the first."""
    asked = np.zeros(len(confidence), np.bool_)
    count = int(round(share * len(confidence), 6))  # 0.29 x 100 is 28.999999999999996
    asked[np.argsort(confidence, kind="stable")[:count]] = True
    return asked
