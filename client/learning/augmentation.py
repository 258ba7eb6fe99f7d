"""Pixels as the student sees them: a random view in training, a plain resize elsewhere."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from client.learning.recipe import Augmentation

Transform = Callable[[Tensor], Tensor]


def random_view(size: int, augmentation: Augmentation) -> Transform:
    """RandomResizedCrop, flip, ColorJitter and grayscale, drawing from torch's global generator."""
    jitter = augmentation.jitter
    view: Transform = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=augmentation.crop_scale, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.ColorJitter(jitter, jitter, jitter, jitter),
            v2.RandomGrayscale(augmentation.grayscale),
        ]
    )
    return view


def plain_view(size: int) -> Transform:
    """Resize to size x size without a crop, as DomainBed evaluates."""
    resize: Transform = v2.Resize((size, size), antialias=True)
    return resize


def to_batch(images: list[NDArray[np.uint8]], transform: Transform) -> Tensor:
    """Images of shape (height, width, 3), each transformed alone, as uint8 of shape (n, 3, size, size)."""
    return torch.stack([transform(torch.from_numpy(image.copy()).permute(2, 0, 1)) for image in images])
