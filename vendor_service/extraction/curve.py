"""The curve: how good a copy of a model some coverage brought, as `benchmarks/extraction.py` measured it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("curve.json")


@dataclass(frozen=True)
class Point:
    """One surrogate that was trained: on how many distinct queries, in how many buckets, and what it came to.

    `cosine` is its mean cosine to the model, `agreement` the share of images that both give the same class,
    and `task_agreement` that share among the images of a few classes, those of the targeted attacker.
    """

    attacker: str
    surrogate: str
    parameters: int
    queries: int
    buckets: int
    cosine: float
    agreement: float
    task_agreement: float


@dataclass(frozen=True)
class Fidelity:
    """The expected quality of a surrogate: its mean cosine to the model, and its agreement with it."""

    cosine: float
    agreement: float


@cache
def measured() -> tuple[Point, ...]:
    """All points of the curve that comes with the vendor, of icon-clip."""
    return tuple(Point(**each) for each in json.loads(FILE.read_text())["points"])


def expected(buckets: int) -> Fidelity | None:
    """The fidelity of the best surrogate measured at this coverage; `None` for none.

    Points that another one beats with less coverage do not count. Between two others it is interpolated over
    the logarithm of the buckets; before the first and beyond the last, it is theirs.
    """
    if buckets <= 0:
        return None
    points = measured()
    cosine = _interpolated(buckets, [(each.buckets, each.cosine) for each in points])
    return Fidelity(cosine, _interpolated(buckets, [(each.buckets, each.agreement) for each in points]))


def _interpolated(buckets: int, points: Iterable[tuple[int, float]]) -> float:
    frontier: list[tuple[int, float]] = []
    for at, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not frontier or value > frontier[-1][1]:
            frontier.append((at, value))
    places, values = zip(*frontier, strict=True)
    return float(np.interp(np.log(buckets), np.log(places), values))
