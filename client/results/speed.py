"""The speed of a student, measured on the machine that it runs on."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from client.data.images import Pixels

_BATCH = 32
_WARM_UP = 3
# Of each of the two measurements, once everything is warm.
_SECONDS = 0.3


@dataclass(frozen=True)
class Speed:
    """Milliseconds for one image on its own, and images a second in batches of 32: medians."""

    milliseconds: float
    images_per_second: float


def speed_of(classify: Callable[[Pixels], object], pictures: Pixels) -> Speed:
    """The speed of what classifies RGB of shape (n, side, side, 3), decoding left out."""
    one = _median_seconds(lambda: classify(pictures[:1]))
    batch = _median_seconds(lambda: classify(pictures[:_BATCH]))
    return Speed(round(1000 * one, 3), round(_BATCH / batch, 1))


def _median_seconds(call: Callable[[], object]) -> float:
    for _ in range(_WARM_UP):
        call()
    taken: list[float] = []
    while sum(taken) < _SECONDS:
        started = time.perf_counter()
        call()
        taken.append(time.perf_counter() - started)
    return median(taken)
