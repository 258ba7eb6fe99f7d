"""Writes a student as ONNX, from bytes of pixels to probabilities, and checks the file against it."""

import json
import warnings
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from client.data.images import Pixels
from client.errors import ClientError, unwritable
from client.learning.classifier import StudentClassifier
from client.learning.student import StudentNetwork
from client.paths import whole_file
from client.results.onnx_classifier import INPUT, PROBABILITIES, SCORES, OnnxClassifier, require_onnx

_OPSET = 18
# Above this, the file is not the student: float32 sums in another order differ by a thousandth of it.
_TOLERANCE = 1e-3
_PREPROCESSING = (
    "Decode to RGB (EXIF orientation applied, transparency on white) and resize to image_size x image_size, "
    "bilinear, without a crop and without keeping proportions. The input is those bytes, uint8 of shape "
    "(batch, image_size, image_size, 3); scaling and normalising are in the graph."
)


@dataclass(frozen=True)
class Parity:
    """How an exported file compares with its student.

    Attributes:
        images: on how many images they were compared.
        max_difference: the largest difference of a probability.
        labels_differ: of how many images they name different classes, ties aside.
    """

    images: int
    max_difference: float
    labels_differ: int

    @property
    def described(self) -> str:
        """In words."""
        classes = f"{self.labels_differ} of other classes" if self.labels_differ else "all of the same class"
        return (
            f"PyTorch and ONNX see {self.images} images, {classes}; "
            f"their probabilities differ by {self.max_difference:.1e} at most"
        )


class _Graph(nn.Module):
    """The graph of the file: bytes of pixels (n, side, side, 3) to scores and probabilities (n, classes)."""

    def __init__(self, student: StudentNetwork) -> None:
        super().__init__()
        self.student = student

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        scores = self.student.logits(self.student(pixels.permute(0, 3, 1, 2)))
        return scores, self.student.probabilities(scores)


def export_onnx(
    student: StudentNetwork, metadata: dict[str, str], path: Path, pictures: Iterable[Pixels] | None = None
) -> Parity:
    """Write a student as one ONNX file that takes batches of any size, and compare the two.

    The file's metadata holds what its reader needs: the classes, the side of its input, and the
    preprocessing in words and numbers.

    Args:
        student: on any device.
        metadata: of its own file, `classes` (JSON) among it.
        path: replaced whole, or not at all.
        pictures: batches of RGB (n, side, side, 3) to compare on; by default made-up ones.

    Raises:
        UsageError: onnx or onnxruntime is not installed.
        ClientError: the file cannot be written, PyTorch cannot put the student into one, or it does not
            agree with the student.
    """
    require_onnx()
    student = deepcopy(student).to("cpu").eval()
    pictures = pictures or [made_up_pictures(student.preprocessing.image_size)]
    try:
        with whole_file(path) as part:
            try:
                _write(student, metadata, part)
            except OSError:
                raise
            except Exception as error:  # an exporter raises anything about a layer that it does not know
                raise ClientError(
                    f"{path} was not written: PyTorch cannot export this student ({type(error).__name__})."
                ) from error
            parity = compare(student, OnnxClassifier(part), pictures)
            if parity.labels_differ or not parity.max_difference < _TOLERANCE:
                raise ClientError(f"{path} was not written, for it is not the student: {parity.described}.")
    except OSError as error:
        raise unwritable(path, error) from error
    return parity


def _write(student: StudentNetwork, metadata: dict[str, str], path: Path) -> None:
    import onnx

    side, names = student.preprocessing.image_size, (SCORES, PROBABILITIES)
    example = torch.zeros(2, side, side, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # The exporter that traces is on its way out, but takes a tenth of its successor's time and no further
        # package. Whether its file is right is checked here in any case.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Graph(student).eval(),
            (example,),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=[INPUT],
            output_names=list(names),
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *names)},
        )
    model = onnx.load(path)
    for name, value in {**metadata, **_preprocessing(student)}.items():
        model.metadata_props.add(key=name, value=value)
    onnx.save(model, path)


def _preprocessing(student: StudentNetwork) -> dict[str, str]:
    seen = student.preprocessing
    return {
        "image_size": str(seen.image_size),
        "mean": json.dumps(seen.mean),
        "std": json.dumps(seen.std),
        "preprocessing": _PREPROCESSING,
    }


def compare(student: StudentNetwork, file: OnnxClassifier, pictures: Iterable[Pixels]) -> Parity:
    """The probabilities of a student and of its file, over batches of RGB (n, side, side, 3)."""
    original = StudentClassifier(student, file.classes)
    images, largest, differ = 0, 0.0, 0
    for batch in pictures:
        ours, theirs = original.probabilities(batch), file.probabilities(batch)
        difference = np.abs(ours - theirs).max(axis=1)
        rows = np.arange(len(batch))
        # Where two classes are as near to each other as rounding, either is right.
        lead = ours.max(axis=1) - ours[rows, theirs.argmax(axis=1)]
        differ += int((lead > _TOLERANCE).sum())
        largest = float(np.maximum(largest, difference.max(initial=0.0)))  # not a number stays one
        images += len(batch)
    return Parity(images, largest, differ)


def made_up_pictures(side: int) -> Pixels:
    """Noise from coarse to fine, RGB of shape (33, side, side, 3): something for every filter to see."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(33):
        grain = min(side, 2 ** (1 + number % 6))
        small = rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)
        repeat = -(-side // grain)
        pictures.append(small.repeat(repeat, axis=0).repeat(repeat, axis=1)[:side, :side])
    return np.stack(pictures)
