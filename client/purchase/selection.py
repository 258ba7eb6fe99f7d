"""In which order images are bought, so that wherever a budget ends, it has bought a good training set."""

import random
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Stratum = tuple[str, str]
SelectionStrategy = Literal["stratified", "random", "coverage"]


def image_order(
    select: SelectionStrategy,
    strata: Sequence[Stratum],
    seed: int,
    features: NDArray[np.float32] | None = None,
) -> list[int]:
    """Positions of the images in the order of purchase; it follows from the arguments alone.

    - "stratified": each (domain, class) in turn, and within each as drawn.
    - "coverage": each (domain, class) in turn, and within each first the most typical image, then always the
      one that is farthest from those before it (greedy k-center: Gonzalez, 1985).
    - "random": as drawn from all alike.

    Args:
        strata: (domain, class) of each image.
        features: for "coverage", what each image looks like, shape (n, f), any length.
    """
    rng = random.Random(f"purchase:{seed}")
    if select == "random":
        return rng.sample(range(len(strata)), len(strata))
    members: dict[Stratum, list[int]] = {}
    for position, stratum in enumerate(strata):
        members.setdefault(stratum, []).append(position)
    names = sorted(members)
    rng.shuffle(names)
    queues = [rng.sample(members[name], len(members[name])) for name in names]
    if select == "coverage":
        if features is None:
            raise ValueError("coverage needs the features of the images")
        queues = [[queue[i] for i in _spread(features[queue])] for queue in queues]
    rounds = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]


def _spread(features: NDArray[np.float32]) -> list[int]:
    """Rows from the most typical on, each the farthest (by angle) from all before it; shape (n, f)."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    rows = features / np.maximum(lengths, np.finfo(np.float32).tiny)
    order = [int(np.argmax(rows @ rows.mean(axis=0)))]
    nearest = rows @ rows[order[0]]  # of each row, the cosine to the nearest one that was taken
    for _ in range(len(rows) - 1):
        nearest[order[-1]] = np.inf
        order.append(int(np.argmin(nearest)))
        np.maximum(nearest, rows @ rows[order[-1]], out=nearest)
    return order
