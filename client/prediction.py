"""Classify image files with a student."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from client.data.images import Pixels, UnreadableImage, decode_square, read_image
from client.learning.student import Student

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


class StudentClassifier:
    """A student that PyTorch runs, on the device where it is."""

    def __init__(self, student: Student, classes: Sequence[str]) -> None:
        self.classes = classes
        self.side = student.preprocessing.image_size
        self._student = student.eval()

    @torch.inference_mode()
    def probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """The softmax of 100 x cosine, or of a classifier's scores where there is no text head."""
        device = next(self._student.parameters()).device
        inputs = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2)
        scores = self._student.logits(self._student(inputs))
        return scores.softmax(dim=1).cpu().numpy()


class Prediction(NamedTuple):
    """The most probable classes of an image, best first; or why it cannot be read, and then none."""

    path: Path
    classes: dict[str, float]
    unreadable: str | None = None


def classify(classifier: Classifier, paths: Iterable[Path], *, top: int) -> Iterator[Prediction]:
    """Predictions in the order of the paths, batch by batch, so any number of images can be asked about."""
    remaining = iter(paths)
    with ThreadPoolExecutor() as pool:
        while chunk := list(islice(remaining, _BATCH)):
            squares = list(pool.map(lambda path: _square(path, classifier.side), chunk))
            pixels = [square for square in squares if not isinstance(square, str)]
            rows = iter(classifier.probabilities(np.stack(pixels)) if pixels else ())
            for path, square in zip(chunk, squares, strict=True):
                if isinstance(square, str):
                    yield Prediction(path, {}, unreadable=square)
                else:
                    yield Prediction(path, _ranked(next(rows), classifier.classes, top))


def _square(path: Path, side: int) -> Pixels | str:
    try:
        return decode_square(read_image(path), side)[0]
    except UnreadableImage as error:
        return str(error)


def _ranked(probabilities: NDArray[np.float32], classes: Sequence[str], top: int) -> dict[str, float]:
    best = np.argsort(-probabilities, kind="stable")[:top]
    return {classes[i]: float(probabilities[i]) for i in best}
