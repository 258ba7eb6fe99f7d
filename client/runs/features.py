"""What training images look like to the untrained student: free of charge, so images can be chosen by it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.pixels import PixelStore
from client.learning.backbones import load_backbone, local_files
from client.learning.stages import plain_features
from client.learning.student import build_student
from client.progress import Display
from client.runs.dataset import Dataset
from client.runs.digest import FileContent, StageInputs, contents
from client.runs.folder import RunConfig
from client.runs.memo import Memo


@dataclass(frozen=True)
class CoverageInputs(StageInputs):
    """What the features depend on that images are chosen by."""

    student: str
    weights: tuple[FileContent, ...]
    image_size: int
    images: str


def training_features(
    config: RunConfig,
    dataset: Dataset,
    display: Display,
    *,
    device: str,
    pixels: Path,
    memo: Memo | None = None,
) -> NDArray[np.float32] | None:
    """Features of the training images by the run's backbone, shape (n, f); `None` unless they are asked for.

    Args:
        config: the run, which says whether images are chosen by coverage, and by which backbone.
        dataset: its images.
        display: what a person sees meanwhile.
        device: where the backbone works.
        pixels: the folder of decoded images, which runs share.
        memo: what it has in common with other runs; `None` for nothing.

    Raises:
        UsageError: the backbone or its weights cannot be had.
    """
    if config.select != "coverage":
        return None
    if not dataset.train:
        return np.zeros((0, 0), np.float32)
    weights = None if config.student_weights is None else Path(config.student_weights)
    inputs = CoverageInputs(
        student=config.student,
        weights=contents(local_files(config.student, weights)),
        image_size=config.image_size,
        images=dataset.content_of(dataset.train),
    )

    def features() -> NDArray[np.float32]:
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        student = build_student(backbone, outputs=1, text_head=None, image_size=config.image_size).to(device)
        with display.track("Looking", len(dataset.train)) as advance:
            seen = plain_features(
                student,
                PixelStore(dataset.examples, pixels),
                dataset.train,
                on_image=lambda done: advance(done, ""),
            )
        return seen.cpu().numpy()

    return (memo or Memo()).once(inputs, features)[0]
