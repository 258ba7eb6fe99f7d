"""Buy what the teacher is expected to be least sure of: margin sampling (Scheffer et al., 2001) on features.

The teacher's embeddings that were bought are predicted from features of the student's network by ridge
regression. Of the other images, those come first whose two most probable classes are nearest to each other.
"""

from collections.abc import Sequence

import numpy as np

from client import PoolState


class Uncertainty:
    """The first round takes each class and domain in turn; every further one the smallest margins."""

    per_round = 200

    def next(self, state: PoolState, n: int) -> Sequence[int]:
        """The n images of which the teacher is expected to be least sure."""
        left, known = state.left, np.isfinite(state.vectors).all(axis=1)
        if not known.any():
            return left[:n]
        features = state.features().astype(np.float64)
        features = (features - features.mean(0)) / (features.std(0) + 1e-6)
        seen = features[known]
        ridge = seen @ seen.T + features.shape[1] * np.eye(len(seen))
        expected = features[left] @ seen.T @ np.linalg.solve(ridge, state.vectors[known])
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) + 1e-12
        scores = np.sort(expected @ state.texts.T, axis=1)
        margins = scores[:, -1] - scores[:, -2] if scores.shape[1] > 1 else scores[:, -1]
        return [left[place] for place in np.argsort(margins, kind="stable")[:n]]
