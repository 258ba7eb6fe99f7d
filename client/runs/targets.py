"""The targets of a run: the rows that a student learns from, and the digest of what they are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from client.learning.methods import Method
from client.learning.student_metadata import StudentMetadata
from client.learning.supervision import ROWS_AT_ONCE, Supervision
from client.results.records import TeacherCheck
from client.runs.digest import StageInputs
from client.runs.mapped import mapped_zeros
from client.vendors.query import Query


@dataclass(frozen=True)
class TargetInputs(StageInputs):
    """The inputs of targets: what is known, bought and decided, and nothing that is computed of it.

    The last digits of what is computed differ with the processor and the number of threads.

    Attributes:
        labels: class of each image, shape (n,); where there is no label, the teacher's sure answer.
        counted: of which images the embedding counts, shape (n,), bool.
        named_by_images: the numbers of the classes that are named by their images.
        texts: the embeddings of the class prompts, shape (prompts, d); `None` where nothing is learnt of a
            vendor.
        images: those of the images, shape (n, d), with zeros where it was not bought; `None` as before.
    """

    labels: NDArray[np.generic]
    counted: NDArray[np.generic]
    named_by_images: tuple[int, ...] = ()
    texts: NDArray[np.generic] | None = None
    images: NDArray[np.generic] | None = None

    @classmethod
    def of(
        cls, known: Supervision, named: Sequence[int] = (), texts: NDArray[np.float32] | None = None
    ) -> Self:
        """Those of what is known in the end."""
        images = None if texts is None else known.images.numpy()
        return cls(known.labels.numpy(), known.bought.numpy(), tuple(named), texts, images)


@dataclass(frozen=True)
class Learnt:
    """The knowledge of a run, before its method makes targets of it.

    Attributes:
        known: labels and embeddings; `None` while a class prompt is missing.
        content: the digest of what is learnt.
        missing: the queries that the cache lacks.
        check: what the labels say of the teacher; `None` where too little was bought.
        teacher: what a student's file says of the vendor's model; `None` where nothing is bought.
    """

    known: Supervision | None
    content: str = ""
    missing: Sequence[Query] = ()
    check: TeacherCheck | None = None
    teacher: StudentMetadata | None = None


@dataclass(frozen=True)
class Targets:
    """The rows that the student learns from.

    Attributes:
        rows: what the method's loss compares with, a row for each of `Dataset.examples`.
        train: positions to train on: the labelled training images, and those unlabelled images that were
            bought.
        text_head: unit class texts that the student predicts by, or starts from, shape (classes, outputs);
            `None` where it has a classifier of its own.
        outputs: how wide the student's outputs are, a tuned classifier's scores aside.
        content: the digest of what they are made of.
        texts: what the method's loss is given of the texts; `None` where it takes none (`Method`).
        check: what the labels say of the teacher; `None` where too little was bought.
        teacher: what the student's file says of the vendor's model; `None` where nothing is bought.
    """

    rows: Tensor
    train: list[int]
    text_head: Tensor | None
    outputs: int
    content: str
    texts: Tensor | None = None
    check: TeacherCheck | None = None
    teacher: StudentMetadata | None = None


def target_rows(known: Supervision, method: Method, folder: Path) -> Tensor:
    """The rows that the method's loss compares with, one an image: made some at a time, in a file there."""
    count = len(known.labels)
    parts = (
        method.targets(known.of(slice(start, start + ROWS_AT_ONCE)))
        for start in range(0, count, ROWS_AT_ONCE)
    )
    first = next(parts)
    rows = mapped_zeros(count, *first.shape[1:], folder=folder, dtype=first.dtype)
    for place, part in zip(torch.split(rows, ROWS_AT_ONCE), chain([first], parts), strict=True):
        place.copy_(part)
    return rows
