"""Classify image files with a trained student."""

from collections.abc import Sequence
from pathlib import Path

import torch

from client.data.images import PixelStore, UnreadableImage, decode, read_image
from client.learning.stages import class_scores
from client.learning.student import Student


def classify(
    student: Student, classes: Sequence[str], paths: Sequence[Path], *, top: int
) -> tuple[dict[Path, dict[str, float]], dict[Path, str]]:
    """The `top` most probable classes of each image, best first, and the images that cannot be read.

    Probabilities are the softmax of 100 x cosine, or of a classifier's scores where there is no text head.
    """
    unreadable: dict[Path, str] = {}
    for path in dict.fromkeys(paths):
        try:
            decode(read_image(path))
        except UnreadableImage as error:
            unreadable[path] = str(error)
    readable = [path for path in dict.fromkeys(paths) if path not in unreadable]
    if not readable:
        return {}, unreadable
    images = PixelStore(readable, short_side=2 * student.preprocessing.image_size)
    probabilities = class_scores(student, images, range(len(readable))).softmax(dim=1)
    best = torch.topk(probabilities, min(top, len(classes)), dim=1)
    ranked = [
        {classes[i]: p for i, p in zip(row, shares, strict=True)}
        for row, shares in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    return dict(zip(readable, ranked, strict=True)), unreadable
