"""Which pictures are near copies of one another: by the correlation of their thumbnails."""

import math
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

# Two pictures are near copies from this correlation of their thumbnails on (docs/method.md).
NEAR = 0.98
# Thumbnails whose correlation is surely below this are not compared any further; the rest is for rounding.
_ROUGHLY = NEAR - 0.001
_PAIRS_AT_ONCE = 2**24  # 64 MiB of likenesses
_WHOLE_AT_ONCE = 2**14  # 54 MiB of pictures


@dataclass(frozen=True)
class Pictures:
    """Thumbnails (n, side, side, 3), and what they are compared by first, as vectors of length 1 (n, d)."""

    whole: NDArray[np.uint8]
    rough: NDArray[np.float32]

    @classmethod
    def of(cls, whole: NDArray[np.uint8]) -> Self:
        """Of these thumbnails."""
        starts = range(0, max(1, len(whole)), _WHOLE_AT_ONCE)
        parts = [_rough(_centred(whole[start : start + _WHOLE_AT_ONCE])) for start in starts]
        return cls(whole, np.concatenate(parts))

    def near_copies_of(self, others: Self) -> NDArray[np.bool_]:
        """Which of these are near copies of one of the others, shape (n,)."""
        near = np.zeros(len(self.whole), np.bool_)
        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(others.whole)))
        for start in range(0, len(near), at_once):
            rows, columns = np.nonzero(self.rough[start : start + at_once] @ others.rough.T > _ROUGHLY)
            for first in range(0, len(rows), _WHOLE_AT_ONCE):
                some = slice(first, first + _WHOLE_AT_ONCE)
                mine, theirs = self.whole[start + rows[some]], others.whole[columns[some]]
                alike = np.einsum("nd,nd->n", _centred(mine), _centred(theirs))
                near[start + rows[some][alike > NEAR]] = True
        return near

    def groups(self) -> NDArray[np.int64]:
        """A number for each, shape (n,), that it shares with its near copies, and with theirs in turn."""
        _, first, same = np.unique(
            self.whole.reshape(len(self.whole), -1), axis=0, return_index=True, return_inverse=True
        )
        whole, rough = self.whole[first], self.rough[first]
        parent = list(range(len(whole)))

        def root(of: int) -> int:
            while parent[of] != of:
                parent[of] = of = parent[parent[of]]
            return of

        at_once = max(1, _PAIRS_AT_ONCE // max(1, len(whole)))
        for start in range(0, len(whole), at_once):
            rows, columns = np.nonzero(rough[start : start + at_once] @ rough[start:].T > _ROUGHLY)
            rows, columns = rows[columns > rows] + start, columns[columns > rows] + start
            for begin in range(0, len(rows), _WHOLE_AT_ONCE):
                mine, theirs = (each[begin : begin + _WHOLE_AT_ONCE] for each in (rows, columns))
                alike = np.einsum("nd,nd->n", _centred(whole[mine]), _centred(whole[theirs])) > NEAR
                for one, other in zip(mine[alike].tolist(), theirs[alike].tolist(), strict=True):
                    parent[root(one)] = root(other)
        return np.array([root(each) for each in range(len(whole))], np.int64)[same.reshape(-1)]


def _centred(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Thumbnails as vectors whose products are correlations, shape (n, d); zero for one plain colour."""
    rows = pictures.reshape(len(pictures), math.prod(pictures.shape[1:])).astype(np.float32)
    return _unit(rows - rows.mean(axis=1, keepdims=True))


def _rough(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same at a third of the size, and behind it the length of what is lost there, shape (n, d / 9 + 1).

    No correlation is above the product of these (the inequality of Cauchy and Schwarz). Of two pictures that
    lose nearly all, the product is near 1, and so they are compared in full.
    """
    side = round((images.shape[1] / 3) ** 0.5) // 3
    thirds = np.kron(np.eye(side), np.ones((3, 1)))
    rows = images @ (np.kron(np.kron(thirds, thirds), np.eye(3)) / 3).astype(np.float32)
    lost = np.einsum("nd,nd->n", images, images) - np.einsum("nd,nd->n", rows, rows)
    return np.column_stack([rows, np.sqrt(np.maximum(lost, 0))])


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.float32(1e-3))
    return unit
