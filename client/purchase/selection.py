"""In which order images are bought, so that wherever a budget ends, it has bought a good training set."""

import random
from collections.abc import Sequence
from typing import Literal

Stratum = tuple[str, str]
SelectionStrategy = Literal["stratified", "random"]


def image_order(select: SelectionStrategy, strata: Sequence[Stratum], seed: int) -> list[int]:
    """Positions of the images in the order of purchase; it follows from the arguments alone.

    - "stratified": each (domain, class) in turn, and within each as drawn.
    - "random": as drawn from all alike.

    Args:
        strata: (domain, class) of each image.
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
    rounds = max(map(len, queues), default=0)
    return [queue[turn] for turn in range(rounds) for queue in queues if turn < len(queue)]
