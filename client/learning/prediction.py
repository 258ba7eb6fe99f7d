"""Classify image files with whatever classifies squares of pixels."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from client.data.images import Pixels, UnreadableImage, decode_square, read_image

_BATCH = 64


class Classifier(Protocol):
    """Squares of pixels in, probabilities out."""

    @property
    def classes(self) -> Sequence[str]:
        """The names of the classes, in the order of the probabilities."""

    @property
    def side(self) -> int:
        """Of the squares, in pixels."""

    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Of shape (n, classes), for RGB of shape (n, side, side, 3)."""


class Prediction(NamedTuple):
    """The probabilities of an image's classes, shape (classes,); or why it cannot be read, and then none."""

    path: Path
    probabilities: NDArray[np.float32]
    unreadable: str | None = None


def classify(classifier: Classifier, paths: Iterable[Path]) -> Iterator[Prediction]:
    """Predictions in the order of the paths, batch by batch, so any number of images can be asked about."""
    remaining = iter(paths)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(remaining, _BATCH)):
            squares = list(pool.map(lambda path: _square(path, classifier.side), chunk))
            pixels = [square for square in squares if not isinstance(square, str)]
            rows = iter(classifier.probabilities(np.stack(pixels)) if pixels else ())
            for path, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Prediction(path, np.zeros(0, np.float32), unreadable=square)
                else:
                    yield Prediction(path, next(rows))


def _square(path: Path, side: int) -> Pixels | str:
    try:
        return decode_square(read_image(path), side)[0]
    except UnreadableImage as error:
        return str(error)


def ranked(probabilities: NDArray[np.floating], classes: Sequence[str], top: int) -> dict[str, float]:
    """The most probable classes, best first; of probabilities of shape (classes,)."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {classes[i]: float(probabilities[i]) for i in best}
