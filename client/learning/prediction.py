"""What a model computes of pictures, batch by batch, so that any number can be asked about."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from client.data.images import Pixels, UnreadableImage
from client.data.pictures import Picture
from client.errors import DataError

_BATCH = 64

# Of squares of pixels, shape (n, side, side, 3), a row each, shape (n, ...).
Compute = Callable[[Pixels], NDArray[Any]]


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
    """The probabilities of a picture's classes, shape (classes,); or why it cannot be read, and then none."""

    picture: Picture
    probabilities: NDArray[np.float32]
    unreadable: str | None = None


def classify(classifier: Classifier, pictures: Iterable[Picture]) -> Iterator[Prediction]:
    """Predictions in the order of the pictures."""
    for chunk, squares in _decoded(pictures, classifier.side):
        pixels = [square for square in squares if not isinstance(square, UnreadableImage)]
        rows = iter(classifier.probabilities(np.stack(pixels)) if pixels else ())
        for picture, square in zip(chunk, squares, strict=True):
            if isinstance(square, UnreadableImage):
                yield Prediction(picture, np.zeros(0, np.float32), unreadable=str(square))
            else:
                yield Prediction(picture, next(rows))


def rows_of(compute: Compute, pictures: Iterable[Picture], side: int) -> NDArray[Any]:
    """The rows of all pictures, in their order, shape (n, ...).

    Raises:
        DataError: a picture cannot be read.
    """
    rows: list[NDArray[Any]] = []
    for chunk, squares in _decoded(pictures, side):
        pixels: list[Pixels] = []
        for picture, square in zip(chunk, squares, strict=True):
            if isinstance(square, UnreadableImage):
                raise DataError(
                    f"{picture.name} cannot be read: {square}. `predict` passes over such images, and its "
                    "`classes` name the others."
                ) from square
            pixels.append(square)
        rows.append(compute(np.stack(pixels)))
    if not rows:  # of no picture, no rows of the same shape
        return compute(np.zeros((1, side, side, 3), np.uint8))[:0]
    return np.concatenate(rows)


def _decoded(
    pictures: Iterable[Picture], side: int
) -> Iterator[tuple[list[Picture], list[Pixels | UnreadableImage]]]:
    """Batches of pictures and their squares, or why there is none."""

    def square(picture: Picture) -> Pixels | UnreadableImage:
        try:
            return picture.square(side)
        except UnreadableImage as error:
            return error

    remaining = iter(pictures)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(remaining, _BATCH)):
            yield chunk, list(pool.map(square, chunk))


def ranked(probabilities: NDArray[np.floating], classes: Sequence[str], top: int) -> dict[str, float]:
    """The most probable classes, best first; of probabilities of shape (classes,)."""
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {classes[i]: float(probabilities[i]) for i in best}
