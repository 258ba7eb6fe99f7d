"""Buckets of the embedding space: which side of a few planes a vector lies on.

A locality-sensitive hash (Charikar, "Similarity estimation techniques from rounding algorithms", STOC 2002):
vectors with a small angle between them tend to fall into one bucket. The planes follow from the model's
fingerprint alone, so every process has the same ones, and a customer can count its own buckets.
"""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shared.encoding import Vector

BITS = 12
COUNT = 1 << BITS  # buckets; many of them hold no vector of any image or text
Directions = NDArray[np.float32]


def buckets_of(rows: Vector, fingerprint: str) -> list[int]:
    """The bucket, from 0 up to but not including `COUNT`, of each row of shape (rows, dimensions)."""
    sides = rows @ directions(fingerprint, "buckets", BITS, rows.shape[1]).T > 0
    found: list[int] = (sides @ (1 << np.arange(BITS))).tolist()
    return found


@cache
def directions(fingerprint: str, purpose: str, count: int, dimensions: int) -> Directions:
    """Directions at random, of components 1 and -1, of shape (count, dimensions).

    They are bits of SHAKE-256, and so the same with every version of every library.
    """
    bits = count * dimensions
    drawn = hashlib.shake_256(f"{purpose} {fingerprint}".encode()).digest(-(-bits // 8))
    signs = np.unpackbits(np.frombuffer(drawn, np.uint8))[:bits].astype(np.float32)
    return (2 * signs - 1).reshape(count, dimensions)
