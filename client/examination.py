"""A finished student's examination: hold-outs, and the target domain, opened here for the first time."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from client.data.domains import Example, ImageFolder, relative
from client.data.pixels import PixelStore
from client.display import Display
from client.errors import DataError
from client.learning.classifier import StudentClassifier
from client.learning.stages import Images, class_scores
from client.learning.student import Student
from client.results.answers import Answer
from client.results.onnx_classifier import OnnxClassifier
from client.results.onnx_export import made_up_pictures
from client.results.speed import speed_of
from client.sources import mention_unread


def read_for_evaluation(folder: ImageFolder, domains: Sequence[str], display: Display) -> list[Example]:
    """Every readable image of some domains; files that are none are named.

    Raises:
        DataError: a domain does not exist or has no readable image.
    """
    folder.require_domains(domains)
    with display.track("Evaluating", sum(map(folder.count, domains))) as advance:
        examples, skipped = folder.read(domains, lambda done: advance(done, ""))
    mention_unread(folder, domains, skipped, display)
    for domain in domains:
        if not any(example.domain == domain for example in examples):
            raise DataError(f"{folder.root} has no readable image in the domain {domain!r} to evaluate on.")
    return examples


def answers_about(
    student: Student,
    classes: Sequence[str],
    folder: ImageFolder,
    examples: Sequence[Example],
    *,
    seen: bool = False,
    decoded: tuple[Images, Sequence[int]] | None = None,
) -> list[Answer]:
    """What a student of these classes says of images of a folder.

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
    unknown = sorted(set(folder.classes) - set(classes))
    if unknown:
        raise DataError(f"The student does not know these classes of {folder.root}: {', '.join(unknown)}.")
    images, positions = decoded or (PixelStore(examples, None), range(len(examples)))
    scores = class_scores(student, images, positions)
    confidences, predicted = student.probabilities(scores).max(dim=1)
    return [
        Answer(
            relative(example.path, folder.root),
            example.domain,
            seen,
            folder.classes[example.label],
            classes[position],
            round(confidence, 6),
        )
        for example, confidence, position in zip(
            examples, confidences.tolist(), predicted.tolist(), strict=True
        )
    ]


def speeds(student: Student, onnx: Path) -> dict[str, Any]:
    """How long the student takes where it is, and its ONNX file, if there is one, on the CPU."""
    pictures = made_up_pictures(student.preprocessing.image_size)
    measured = asdict(speed_of(StudentClassifier(student, []).probabilities, pictures))
    exported = asdict(speed_of(OnnxClassifier(onnx).probabilities, pictures)) if onnx.is_file() else None
    return {"device": next(student.parameters()).device.type, **measured, "onnx": exported}
