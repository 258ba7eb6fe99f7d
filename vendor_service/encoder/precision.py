"""Whether another arithmetic than float32 is faithful to it, by a model's answers to canaries."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from shared.embeddings import Kind
from vendor_service.encoder.queries import PreparedText
from vendor_service.encoder.replica import Replica

Canaries = Mapping[Kind, Sequence[Any]]

FAITHFUL = 0.999  # the least cosine to what float32 answers

_TEXTS = ("a photo of a cat", "a red square on a white wall", "Ünïcode, 2&3", "x")


def make_canaries(
    preprocess: Callable[[Image.Image], torch.Tensor], tokenize: Callable[[str], PreparedText], side: int
) -> Canaries:
    """Images of `side` pixels and texts, as replicas stage them.

    Broad areas of few colours are the images on which rounding shows most.
    """
    images = [preprocess(_canary(cells, seed, side)) for cells in (2, 4, 16) for seed in range(4)]
    return {"image": images, "text": [*map(tokenize, _TEXTS)]}


def least_cosine(exact: Replica, other: Replica, canaries: Canaries) -> float:
    """The least cosine between the answers of two replicas to the same canaries."""
    cosines = []
    for kind, items in canaries.items():
        rows = [replica.encode(kind, replica.stage(kind, items)) for replica in (exact, other)]
        cosines.append(np.sum(rows[0] * rows[1], axis=1).min())
    return float(min(cosines))


def _canary(cells: int, seed: int, side: int) -> Image.Image:
    colours = np.random.default_rng(seed).integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((side, side), Image.Resampling.BICUBIC)
