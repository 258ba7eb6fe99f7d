"""Sketches: statistics of many inputs in a fixed size, from which no input can be read.

Two sketches merge into that of all inputs of both, so each process keeps its own.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from shared.encoding import Vector

KEPT = 512  # hashes
PROJECTED = 64  # dimensions of the second moment
Hashes = NDArray[np.uint64]  # sorted, each once
Moment = NDArray[np.float64]
Directions = NDArray[np.float32]
_LARGEST_HASH = 2.0**64
_STORED_HASH, _STORED_NUMBER = np.dtype("<u8"), np.dtype("<f4")
_TRIANGLE = np.triu_indices(PROJECTED + 1)


def _no_hashes() -> Hashes:
    return np.empty(0, np.uint64)


def _no_moment() -> Moment:
    return np.zeros((PROJECTED + 1, PROJECTED + 1))


@dataclass
class Sketch:
    """The inputs that were asked about, and the answers, of one account and one model.

    Attributes:
        inputs: the `KEPT` smallest keyed hashes of the inputs (Bar-Yossef et al., "Counting distinct elements
            in a data stream", RANDOM 2002). They are as good as a sample of the distinct inputs.
        moment: the sum of y y', where y is 1 followed by the answer's projection onto `PROJECTED` directions.
    """

    inputs: Hashes = field(default_factory=_no_hashes)
    moment: Moment = field(default_factory=_no_moment)

    def add(self, hashes: Hashes, rows: Vector, fingerprint: str) -> None:
        """Count inputs by their hashes, in any order, and their answers, of shape (rows, dimensions)."""
        self.inputs = _smallest(self.inputs, hashes)
        across = directions(fingerprint, "projection", PROJECTED, rows.shape[1])
        # In double precision: sums in single precision are so far off that one answer again and again varies.
        seen = np.ones((len(rows), PROJECTED + 1))
        seen[:, 1:] = rows @ across.T / np.sqrt(np.float32(PROJECTED))
        self.moment += seen.T @ seen

    def merge(self, other: "Sketch") -> None:
        """Become the sketch of all that either has seen."""
        self.inputs = _smallest(self.inputs, other.inputs)
        self.moment += other.moment

    @property
    def distinct_inputs(self) -> int:
        """How many different inputs there were: exact up to 511, then within about 9% (two deviations)."""
        if len(self.inputs) < KEPT:
            return len(self.inputs)
        return round((KEPT - 1) * _LARGEST_HASH / (float(self.inputs[-1]) + 1))

    @property
    def effective_rank(self) -> float:
        """How many directions the answers fill, of `PROJECTED`: the exponential of the spectrum's entropy.

        Roy and Vetterli, "The effective rank", EUSIPCO 2007, of the covariance; 0 where nothing varies.
        """
        count = self.moment[0, 0]
        if count < 2:
            return 0.0
        mean = self.moment[0, 1:] / count
        second = self.moment[1:, 1:] / count
        spectrum = np.linalg.eigvalsh(second - np.outer(mean, mean))
        # The books' single precision fills every direction a little, more with each writing, and about as far
        # below zero as above: what is below tells how far.
        spectrum = spectrum[spectrum > max(1e-6 * np.trace(second), -4 * spectrum[0])]
        if not len(spectrum):
            return 0.0
        shares = spectrum / spectrum.sum()
        return float(np.exp(-(shares * np.log(shares)).sum()))

    def resemblance(self, other: "Sketch") -> float:
        """The share of the inputs of either that both have asked about (Jaccard's coefficient), estimated."""
        together = _smallest(self.inputs, other.inputs)
        shared = np.intersect1d(self.inputs, other.inputs, assume_unique=True)
        return float(np.isin(together, shared).mean()) if len(together) else 0.0

    def stored(self) -> tuple[bytes, bytes]:
        """The hashes and the moment as the books have them: little-endian, of the moment one triangle."""
        return (
            self.inputs.astype(_STORED_HASH).tobytes(),
            self.moment[_TRIANGLE].astype(_STORED_NUMBER).tobytes(),
        )

    @classmethod
    def of_stored(cls, inputs: bytes, moment: bytes) -> "Sketch":
        """The sketch that the books have."""
        upper = _no_moment()
        upper[_TRIANGLE] = np.frombuffer(moment, _STORED_NUMBER)
        whole = upper + np.triu(upper, 1).T
        return cls(np.frombuffer(inputs, _STORED_HASH).astype(np.uint64), whole)


@cache
def directions(fingerprint: str, purpose: str, count: int, dimensions: int) -> Directions:
    """Directions at random, of components 1 and -1, of shape (count, dimensions).

    They are bits of SHAKE-256, and so the same with every version of every library.
    """
    bits = count * dimensions
    drawn = hashlib.shake_256(f"{purpose} {fingerprint}".encode()).digest(-(-bits // 8))
    signs = np.unpackbits(np.frombuffer(drawn, np.uint8))[:bits].astype(np.float32)
    return (2 * signs - 1).reshape(count, dimensions)


def hashes_of(digests: Iterable[str], key: bytes) -> Hashes:
    """Keyed hashes of inputs by their SHA-256 (hex): without the key, nobody can tell whose one is."""
    hashed = [hashlib.blake2b(bytes.fromhex(each), key=key, digest_size=8).digest() for each in digests]
    return np.frombuffer(b"".join(hashed), _STORED_HASH).astype(np.uint64)


def _smallest(first: Hashes, second: Hashes) -> Hashes:
    return np.union1d(first, second)[:KEPT]
