"""How sure a student was of its hold-outs, and how often it was right: what a threshold is fitted on."""

import json
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# So many groups of hold-outs at most, from the least sure to the surest.
_GROUPS = 50


@dataclass(frozen=True)
class Reliability:
    """Confidence and accuracy on the hold-outs, by groups, the least sure group first.

    Attributes:
        confidence: the mean confidence of each group, from 0 to 1, rising.
        accuracy: the share of right answers in each group.
        counts: how many hold-outs each group has.
    """

    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, confidence: NDArray[np.floating], right: NDArray[np.bool_], *, groups: int = _GROUPS) -> Self:
        """That of some answers, both of shape (n,); n is at least 1."""
        order = np.argsort(confidence, kind="stable")
        members = np.array_split(order, min(groups, len(order)))
        return cls(
            tuple(round(float(confidence[rows].mean()), 6) for rows in members),
            tuple(round(float(right[rows].mean()), 6) for rows in members),
            tuple(map(len, members)),
        )

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: it is something else.
        """
        rows = [(float(sure), float(right), int(count)) for sure, right, count in json.loads(text)]
        return cls(tuple(r[0] for r in rows), tuple(r[1] for r in rows), tuple(r[2] for r in rows))

    def to_json(self) -> str:
        """As the metadata of a student's file hold it."""
        return json.dumps(list(zip(self.confidence, self.accuracy, self.counts, strict=True)))

    def least_sure(self, share: float) -> tuple[float, float]:
        """The least confidence above those of the least sure share, and how often that share was right."""
        before = np.cumsum(self.counts) - self.counts
        inside = np.flatnonzero(before < share * sum(self.counts))
        rest = inside[-1] + 1 if len(inside) else 0
        confidence = self.confidence[rest] if rest < len(self.confidence) else 1.0
        right = np.average(self.accuracy[:rest], weights=self.counts[:rest]) if rest else 0.0
        return confidence, float(right)
