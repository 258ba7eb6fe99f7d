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

from client.errors import ClientError
from client.learning.methods import Method
from client.learning.student_metadata import StudentMetadata
from client.learning.supervision import ROWS_AT_ONCE, Rows, Supervision
from client.plugins import of_others
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
            bought, or all of a method that buys no image.
        text_head: unit class texts that the student predicts by, or starts from, shape (classes, outputs);
            `None` where it has a classifier of its own.
        outputs: how wide the student's outputs are, a tuned classifier's scores aside.
        content: the digest of what they are made of.
        texts: what the method's loss is given of the texts; `None` where it takes none (`Method`).
        check: what the labels say of the teacher; `None` where too little was bought.
        teacher: what the student's file says of the vendor's model; `None` where nothing is bought.
    """

    rows: Rows
    train: list[int]
    text_head: Tensor | None
    outputs: int
    content: str
    texts: Tensor | None = None
    check: TeacherCheck | None = None
    teacher: StudentMetadata | None = None


def target_rows(known: Supervision, method: Method, folder: Path) -> Rows:
    """The rows that the method's loss compares with, one an image: made some at a time, in a file there.

    Raises:
        ClientError: the method's own code raises, or does not give a row for each image.
    """
    count = len(known.labels)
    parts = (
        _part(method, known.of(slice(start, min(count, start + ROWS_AT_ONCE))))
        for start in range(0, count, ROWS_AT_ONCE)
    )
    first, is_one = next(parts)
    rows = [mapped_zeros(count, *each.shape[1:], folder=folder, dtype=each.dtype) for each in first]
    places = zip(*(torch.split(each, ROWS_AT_ONCE) for each in rows), strict=True)
    for place, (part, _) in zip(places, chain([(first, is_one)], parts), strict=True):
        for into, values in zip(place, part, strict=True):
            into.copy_(values)
    return rows[0] if is_one else tuple(rows)


def _part(method: Method, known: Supervision) -> tuple[tuple[Tensor, ...], bool]:
    """The rows of some images, side by side, and whether the method gives one tensor of them."""
    with of_others(f"The targets of {method.name}"):
        made = method.targets(known)
    rows = (made,) if isinstance(made, Tensor) else made
    if not isinstance(rows, tuple) or not rows or not all(isinstance(each, Tensor) for each in rows):
        raise ClientError(
            f"The targets of {method.name} are of type {type(made).__name__}: they have to be a tensor, or a "
            "tuple of tensors."
        )
    for each in rows:
        if each.ndim == 0 or len(each) != len(known.labels):
            raise ClientError(
                f"The targets of {method.name} have shape {tuple(each.shape)}, for {len(known.labels)} "
                "images: there has to be a row for each."
            )
    return tuple(each.detach().cpu() for each in rows), isinstance(made, Tensor)
