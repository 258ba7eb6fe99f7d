"""The evaluation of a finished student: hold-outs, and the target domain, opened here for the first time."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.domains import ImageFolder
from client.data.examples import Example, read_files, thumbnails
from client.data.file_memory import FileMemory
from client.data.finder import Skipped
from client.data.names import composed, relative
from client.data.near_copies import Pictures
from client.data.pixels import PixelStore
from client.errors import DataError
from client.learning.classifier import StudentClassifier
from client.learning.prediction import Classifier
from client.learning.stages import class_scores
from client.learning.student import StudentNetwork
from client.learning.training_set import Images
from client.progress import Display
from client.results.onnx_classifier import OnnxClassifier
from client.results.onnx_export import made_up_pictures
from client.results.predictions import LabelledPrediction
from client.results.records import OnnxSpeed, StudentSpeed
from client.results.speed import speed_of
from client.runs.dataset import Dataset
from client.runs.mentions import LISTS_ALL, mention_skipped, unread_in

# Images whose pixels are in memory at once.
_BATCH = 64


def read_for_evaluation(
    folder: ImageFolder,
    domains: Sequence[str],
    display: Display,
    memory: FileMemory = FileMemory(None),  # noqa: B008 (it holds nothing)
) -> tuple[list[Example], list[Skipped]]:
    """Every readable image of some domains, and the files that are left out, which are mentioned.

    Raises:
        DataError: a domain does not exist or has no readable image.
    """
    folder.require_domains(domains)
    with display.track("Evaluating", sum(map(folder.count, domains))) as advance:
        examples, skipped = folder.read(domains, lambda done: advance(done, ""), memory)
    left_out = unread_in(folder, domains, skipped, display)
    for domain in domains:
        if not any(example.domain == domain for example in examples):
            raise DataError(f"{folder.given} has no readable image in the domain {domain!r} to evaluate on.")
    return examples, left_out


def leave_out_copies(
    dataset: Dataset, target: Sequence[Example], display: Display
) -> tuple[list[Example], list[Skipped]]:
    """`Dataset.without_copies`; those that are left out are mentioned.

    Raises:
        DataError: no image is left.
    """
    tested, copies = dataset.without_copies(target)
    root = dataset.folder.root
    mention_skipped(copies, root, display, listed_in=LISTS_ALL)
    if not tested:
        raise DataError(
            f"All images of {dataset.target} in {root} are copies of images of other domains, so nothing can "
            "be tested on it as on a domain that a student has never seen. Hold another domain out."
        )
    return tested, copies


def twins_among(tested: Sequence[Example], memory: FileMemory) -> list[int] | None:
    """A number for each image, which near twins of its domain share.

    `None` where an image can no longer be read.
    """
    facts = list(read_files([example.path for example in tested], memory))
    if any(each.reason for each in facts):
        return None
    domains = np.array([example.domain for example in tested])
    twins = np.zeros(len(tested), np.int64)
    for domain in set(domains.tolist()):
        (there,) = np.nonzero(domains == domain)
        twins[there] = there[Pictures.of(thumbnails([facts[each] for each in there])).groups()]
    return list(map(int, twins))


def answers_about(
    student: StudentNetwork,
    classes: Sequence[str],
    folder: ImageFolder,
    examples: Sequence[Example],
    *,
    seen: bool = False,
    decoded: tuple[Images, Sequence[int]] | None = None,
) -> list[LabelledPrediction]:
    """The answers of a student of these classes about images of a folder.

    Args:
        student: on any device.
        classes: in the order of its scores.
        folder: that the images are of.
        examples: the images.
        seen: whether their domains were trained on.
        decoded: where their pixels are, and at which positions; they are decoded here where it is `None`.

    Raises:
        DataError: the student does not know a class of the folder.
    """
    _require_known(folder, classes)
    images, positions = decoded or (PixelStore(examples, None), range(len(examples)))
    probabilities = student.probabilities(class_scores(student, images, positions))
    return _answers(probabilities.numpy(), classes, folder, examples, seen=seen)


def answers_by(
    classifier: Classifier, folder: ImageFolder, examples: Sequence[Example], *, seen: bool = False
) -> list[LabelledPrediction]:
    """The same of whatever classifies squares of pixels.

    Raises:
        DataError: as `answers_about`.
    """
    _require_known(folder, classifier.classes)
    images = PixelStore(examples, None)
    batches = [
        classifier.probabilities(images.load(range(start, min(start + _BATCH, len(examples))), side).pixels)
        for side in [classifier.side]
        for start in range(0, len(examples), _BATCH)
    ]
    return _answers(np.concatenate(batches), classifier.classes, folder, examples, seen=seen)


def _require_known(folder: ImageFolder, classes: Sequence[str]) -> None:
    unknown = sorted(set(folder.classes) - set(map(composed, classes)))
    if unknown:
        raise DataError(f"The student does not know these classes of {folder.given}: {', '.join(unknown)}.")


def _answers(
    probabilities: NDArray[np.float32],
    classes: Sequence[str],
    folder: ImageFolder,
    examples: Sequence[Example],
    *,
    seen: bool,
) -> list[LabelledPrediction]:
    """The most probable class of each image, by probabilities of shape (images, classes)."""
    return [
        LabelledPrediction(
            relative(example.path, folder.root),
            example.domain,
            seen,
            folder.classes[example.label],
            composed(classes[row.argmax()]),
            round(float(row.max()), 6),
        )
        for example, row in zip(examples, probabilities, strict=True)
    ]


def speeds(student: StudentNetwork, onnx: Path) -> StudentSpeed:
    """How long the student takes where it is, and its ONNX file, if there is one, on the CPU."""
    pictures = made_up_pictures(student.preprocessing.image_size)
    measured = asdict(speed_of(StudentClassifier(student, []).probabilities, pictures))
    exported = None
    if onnx.is_file():
        exported = OnnxSpeed(**asdict(speed_of(OnnxClassifier(onnx).probabilities, pictures)))
    return StudentSpeed(device=next(student.parameters()).device.type, **measured, onnx=exported)
