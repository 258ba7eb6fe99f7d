"""How sure a student was of its hold-outs, and how often it was right: what a threshold is fitted on."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# So many groups of hold-outs, from the least sure to the surest, each as large as the next.
_GROUPS = 50


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy on the hold-outs, by groups of equal size, the least sure group first.

    Attributes:
        confidence: the mean confidence of each group, from 0 to 1, rising.
        accuracy: the share of right answers in each group.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @classmethod
    def of(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_]) -> Self:
        """That of some answers, both of shape (n,); n is at least 1."""
        order = np.argsort(confidence, kind="stable")
        groups = np.array_split(order, min(_GROUPS, len(order)))
        return cls(
            tuple(round(float(confidence[rows].mean()), 6) for rows in groups),
            tuple(round(float(right[rows].mean()), 6) for rows in groups),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` gives.

        Raises:
            ValueError: it is something else.
        """
        try:
            read = json.loads(text)
            pairs = [(float(confidence), float(accuracy)) for confidence, accuracy in read]
        except (TypeError, ValueError) as error:
            raise ValueError("the reliability of a student is a list of pairs") from error
        return cls(tuple(pair[0] for pair in pairs), tuple(pair[1] for pair in pairs))

    def to_json(self) -> str:
        """As the metadata of a student's file hold it."""
        return json.dumps(list(zip(self.confidence, self.accuracy, strict=True)))

    def threshold(self, share: float) -> float:
        """The confidence below which this share of the hold-outs lies."""
        return float(np.quantile(self.confidence, share)) if self.confidence else 0.0

    def accuracy_with(self, share: float, asked_accuracy: float) -> float:
        """The accuracy to expect if this share, the least sure, is answered by somebody so often right."""
        groups = len(self.accuracy)
        asked = np.clip(share * groups - np.arange(groups), 0, 1)
        return float((asked * asked_accuracy + (1 - asked) * np.array(self.accuracy)).mean())

    def share_for(self, wanted: float, asked_accuracy: float) -> float | None:
        """The smallest share, in hundredths, to ask about for an accuracy; `None` where none reaches it."""
        shares = (step / 100 for step in range(101))
        return next((s for s in shares if self.accuracy_with(s, asked_accuracy) >= wanted), None)
