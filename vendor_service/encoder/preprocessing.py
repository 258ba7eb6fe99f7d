"""From an image to what the model is given: open_clip's own geometry, with arithmetic left to the device."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from open_clip.transform import PreprocessCfg, ResizeKeepRatio, image_transform_v2
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode

# Files may be decoded at a fraction of their size, but not below so many times the size that they are resized
# to: what that leaves out, the resizing would have left out too. Measured by benchmarks/decoding.py.
_OVERSAMPLING = 4
# Beyond so many times the pixels that the model sees, most of a resized image would be cut off again.
_WASTE = 4

_FILTERS = {
    InterpolationMode.BICUBIC: ("bicubic", Image.Resampling.BICUBIC),
    InterpolationMode.BILINEAR: ("bilinear", Image.Resampling.BILINEAR),
}


class Preprocessing:
    """The preprocessing of one model, in two halves.

    `resize` (open_clip's transform, as far as it deals in bytes) runs for each image on the CPU, `normalise`
    for a whole batch on the device; in between, a colour is one byte.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        self._resize, *rest = image_transform_v2(PreprocessCfg(**config), is_train=False).transforms
        *crop, _to_rgb, _to_tensor, normalise = rest
        self._crop = Compose(crop)
        self._filter, self._pillow_filter = _FILTERS[self._resize.interpolation]
        mean, std = (torch.tensor(each).view(3, 1, 1) for each in (normalise.mean, normalise.std))
        self._scale, self._shift = 1 / (255 * std), -mean / std
        size = config["size"]
        sides: tuple[int, int] = (size, size) if isinstance(size, int) else size
        self._height, self._width = sides
        self.image_size: int = min(self._height, self._width)
        self.image_bytes: int = 3 * self._height * self._width

    def enough(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which a file of that size may be decoded, if its decoder can choose."""
        resized_width, resized_height = self._resized(width, height)
        return _OVERSAMPLING * resized_width, _OVERSAMPLING * resized_height

    def resize(self, image: Image.Image) -> torch.Tensor:
        """What the model sees of an RGB image: bytes of shape (height, width, 3).

        Rarely more than one apart, in any of them, from what open_clip's transform gives.
        """
        width, height = self._resized(*image.size)
        if width * height > _WASTE * self._width * self._height:
            return _tensor(self._resize_middle(image, width, height))
        pixels = _tensor(image)[None].permute(0, 3, 1, 2)
        if height < image.height and width > image.width:
            pixels = self._interpolate(pixels, image.width, height)  # first what makes it smaller
        if (width, height) != image.size:
            pixels = self._interpolate(pixels, width, height)
        cut: torch.Tensor = self._crop(pixels)[0].permute(1, 2, 0)
        # numpy copies on this thread alone, torch would wake up others.
        return torch.from_numpy(np.ascontiguousarray(cut.numpy()))

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """Bytes of shape (images, height, width, 3) as float32 of shape (images, 3, height, width).

        It lies in memory as the bytes do, channels last, and so does what convolutions make of it: on CPUs
        a third faster in a small ViT, a tenth in a ResNet, and no slower in ViT-B-32.
        """
        scale, shift = self._scale.to(pixels.device), self._shift.to(pixels.device)
        return torch.addcmul(shift, pixels.permute(0, 3, 1, 2).float(), scale)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that open_clip resizes to, before it crops or pads."""
        if isinstance(self._resize, ResizeKeepRatio):
            size = SimpleNamespace(size=(width, height))
            new_height, new_width = self._resize.get_params(size, self._resize.size, self._resize.longest)
        elif isinstance(self._resize.size, int):
            shorter = self._resize.size
            new_width = max(shorter, int(shorter * width / height))
            new_height = max(shorter, int(shorter * height / width))
        else:
            new_height, new_width = self._resize.size
        return max(1, new_width), max(1, new_height)

    def _interpolate(self, pixels: torch.Tensor, width: int, height: int) -> torch.Tensor:
        # The filters are Pillow's, several times as fast; where the channels come last it makes no copies.
        return torch.nn.functional.interpolate(
            pixels, size=(height, width), mode=self._filter, antialias=True
        )

    def _resize_middle(self, image: Image.Image, width: int, height: int) -> Image.Image:
        """Only as much of an image as is not cut off: a line of a million pixels must not fill the memory."""
        left, top = round((width - self._width) / 2), round((height - self._height) / 2)
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + self._width) * across, (top + self._height) * down)
        return image.resize((self._width, self._height), self._pillow_filter, box=box)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))
