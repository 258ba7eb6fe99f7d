"""What training images look like to the untrained student: free of charge, so images can be chosen by it."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.data.pixels import PixelStore
from client.learning.backbones import load_backbone
from client.learning.stages import plain_features
from client.learning.student import build_student
from client.progress import Display
from client.runs.folder import RunConfig
from client.runs.memo import SharedWork
from client.runs.sources import Sources


def training_features(
    config: RunConfig,
    sources: Sources,
    display: Display,
    *,
    device: str,
    pixels: Path,
    shared: SharedWork | None = None,
) -> NDArray[np.float32] | None:
    """Features of the training images by the run's backbone, shape (n, f); `None` unless they are asked for.

    Args:
        config: the run, which says whether images are chosen by coverage, and by which backbone.
        sources: its images.
        display: what a person sees meanwhile.
        device: where the backbone works.
        pixels: the folder of decoded images, which runs share.
        shared: what it has in common with other runs; `None` for nothing.

    Raises:
        UsageError: the backbone or its weights cannot be had.
    """
    if config.select != "coverage":
        return None
    content = "".join(sources.examples[position].digest for position in sources.train)
    of_what = (config.student, config.student_weights, config.image_size, content)
    key = hashlib.sha256(repr(of_what).encode()).hexdigest()

    def look() -> NDArray[np.float32]:
        weights = None if config.student_weights is None else Path(config.student_weights)
        backbone = load_backbone(config.student, image_size=config.image_size, weights=weights)
        student = build_student(backbone, outputs=1, text_head=None, image_size=config.image_size).to(device)
        with display.track("Looking", len(sources.train)) as advance:
            features = plain_features(
                student,
                PixelStore(sources.examples, pixels),
                sources.train,
                on_image=lambda done: advance(done, ""),
            )
        return features.cpu().numpy()

    return (shared or SharedWork()).once("looks", key, look)[0]
