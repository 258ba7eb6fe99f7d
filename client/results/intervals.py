"""How sure an accuracy is that was measured on few images: 95% intervals."""

import math
from collections.abc import Iterable

# With so many images the interval is at most 3 points to each side, and is not shown.
ENOUGH_IMAGES = 1000
_Z = 1.959964

# The lowest and the highest share, from 0 to 1.
Interval = tuple[float, float]


def wilson(share: float, images: float) -> Interval:
    """The 95% interval of a share of some images (Wilson, JASA 1927): it holds for few, and near 0 and 1."""
    weight = _Z**2 / images
    middle = (share + weight / 2) / (1 + weight)
    half = _Z * math.sqrt(share * (1 - share) / images + weight / (4 * images)) / (1 + weight)
    return max(0.0, middle - half), min(1.0, middle + half)


def interval_of(share: float, images: int) -> Interval | None:
    """The interval of an accuracy; `None` where enough images, or none, were looked at."""
    return wilson(share, images) if 0 < images < ENOUGH_IMAGES else None


def interval_of_mean(parts: Iterable[tuple[float, int]]) -> Interval | None:
    """The interval of the mean of several shares, each of so many images; `None` where they are enough.

    It is made of the shares' own (MOVER: Zou & Donner, Statistics in Medicine 2008).
    """
    parts = list(parts)
    images = sum(count for _, count in parts)
    if not images or images >= ENOUGH_IMAGES:
        return None
    return interval_of_mix((1 / len(parts), share, count) for share, count in parts)[1]


def interval_of_mix(parts: Iterable[tuple[float, float, float]]) -> tuple[float, Interval]:
    """A weighted mean of shares, and its interval by MOVER.

    Args:
        parts: the weight of each, which add up to 1; the share; and of how many images it is, 0 where it is
            taken to be exact.
    """
    known = [(weight, share, images) for weight, share, images in parts if weight > 0]
    each = [(w, share, *(wilson(share, images) if images else (share, share))) for w, share, images in known]
    mean = math.fsum(weight * share for weight, share, _, _ in each)
    below = math.sqrt(math.fsum((weight * (share - low)) ** 2 for weight, share, low, _ in each))
    above = math.sqrt(math.fsum((weight * (high - share)) ** 2 for weight, share, _, high in each))
    return mean, (max(0.0, mean - below), min(1.0, mean + above))


def images_to_tell(share: float, images: int, line: float) -> float:
    """How many images it takes in all to tell on which side of a line a share is, if it stays as it is."""
    low, high = wilson(share, images)
    if not low <= line <= high:
        return images
    if share == line:
        return math.inf
    return _Z**2 * share * (1 - share) / (share - line) ** 2 + _Z**2


def coin_tosses(heads: int, tails: int) -> float:
    """How likely a coin falls as unevenly as that or more: the exact test of McNemar (two-sided)."""
    tosses, fewer = heads + tails, min(heads, tails)
    as_uneven = sum(math.comb(tosses, count) for count in range(fewer + 1))
    return min(1.0, 2 * math.ldexp(as_uneven, -tosses))


def in_percent(interval: Interval | None) -> str:
    """The interval as a table shows it beside its accuracy in %; nothing where there is none."""
    return "" if interval is None else f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f}"
