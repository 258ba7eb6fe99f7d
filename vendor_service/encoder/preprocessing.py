"""From an image to what the model is given: open_clip's own resizing, with arithmetic left to the device."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose


class Preprocessing:
    """The preprocessing of one model, in two halves.

    `resize` (open_clip's transform, as far as it deals in bytes) runs for each image on the CPU, `normalise`
    for a whole batch on the device; in between, a colour is one byte.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        *geometry, _to_tensor, normalise = image_transform_v2(
            PreprocessCfg(**config), is_train=False
        ).transforms
        self._geometry = Compose(geometry)
        self._mean = torch.tensor(normalise.mean).view(3, 1, 1)
        self._std = torch.tensor(normalise.std).view(3, 1, 1)
        size = config["size"]
        height, width = (size, size) if isinstance(size, int) else size
        self.image_size: int = min(height, width)
        self.image_bytes: int = 3 * height * width

    def resize(self, image: Image.Image) -> torch.Tensor:
        """What the model sees of an RGB image: bytes of shape (height, width, 3)."""
        return torch.from_numpy(np.array(self._geometry(image)))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes of shape (images, height, width, 3) as float32 of shape (images, 3, height, width).

        It lies in memory as the bytes do, channels last.
        """
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return pixels.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)
