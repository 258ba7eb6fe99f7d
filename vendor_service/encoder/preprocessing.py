"""From an image to the pixels that the model sees: open_clip's own geometry, in bytes.

The geometry is worked out here, and tests compare it with open_clip's: the processes that decode start in a
third of the time where they need not import open_clip.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from shared.errors import APIError, ErrorCode
from shared.images.colours import loaded_rgb

# Files may be decoded at a fraction of their size, but not below so many times the size that they are resized
# to: what that leaves out, the resizing would have left out too. Measured by benchmarks/decoding.py.
_OVERSAMPLING = 4
# Beyond so many times the pixels that the model sees, most of a resized image would be cut off again.
_WASTE = 4

# Decoded, converted and handed on, four bytes each, as measured; WebP's own library keeps more.
_BYTES_A_PIXEL = 12
_BYTES_A_PIXEL_OF_WEBP = 16
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


class Preprocessing:
    """The preprocessing of one model, by open_clip's configuration of it, as far as it deals in bytes.

    The arithmetic of colours is left to the device, which does it for a whole batch (`Normalisation`). As in
    open_clip's own pipeline, an image is converted to RGB first, where transparency is dropped rather than
    blended, EXIF orientation is not applied, and of an animation the first frame is taken.
    """

    formats = ("PNG", "JPEG", "WEBP")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        size = config["size"]
        self._height, self._width = (size, size) if isinstance(size, int) else map(int, size)
        self._mode: str = config.get("resize_mode") or "shortest"
        self._fill: int = config.get("fill_color", 0) if self._mode == "longest" else 0
        oblong = self._mode == "shortest" and self._height != self._width
        # open_clip resizes to an oblong with its default filter, whatever it is told.
        self._filter: str = "bicubic" if oblong or config.get("interpolation") != "bilinear" else "bilinear"
        self.image_size: int = min(self._height, self._width)
        self.image_bytes: int = 3 * self._height * self._width
        self.shape = (self._height, self._width, 3)

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which a file of that size may be decoded, if its decoder can choose."""
        resized_width, resized_height = self._resized(width, height)
        return _OVERSAMPLING * resized_width, _OVERSAMPLING * resized_height

    def bytes_a_pixel(self, form: str | None) -> int:
        """The memory that decoding and converting takes for each pixel of a file of this format."""
        return _BYTES_A_PIXEL_OF_WEBP if form == "WEBP" else _BYTES_A_PIXEL

    def pixels(self, image: Image.Image) -> NDArray[np.uint8]:
        """Decode an opened image, and resize and crop it: bytes of shape (height, width, 3)."""
        pixels: NDArray[np.uint8] = self.resize(loaded_rgb(image)).numpy()
        return pixels

    def unknown(self, data: bytes) -> APIError:
        """The refusal of a file that is not known as one of the formats."""
        if data.startswith(_SIGNATURES):
            return APIError(ErrorCode.INVALID_IMAGE, "the image file is damaged")
        return APIError(ErrorCode.UNSUPPORTED_IMAGE_FORMAT, "the file is not a PNG, JPEG or WebP image")

    def resize(self, image: Image.Image) -> torch.Tensor:
        """Resize and crop an RGB image for the model: bytes of shape (height, width, 3).

        Each byte is rarely more than one apart from that of open_clip's transform.
        """
        width, height = self._resized(*image.size)
        if width * height > _WASTE * self._width * self._height:
            return _tensor(self._resize_middle(image, width, height))
        pixels = _tensor(image)[None].permute(0, 3, 1, 2)
        if height < image.height and width > image.width:
            pixels = self._interpolate(pixels, image.width, height)  # first what makes it smaller
        if (width, height) != image.size:
            pixels = self._interpolate(pixels, width, height)
        # numpy copies on this thread alone, torch would wake up others.
        return torch.from_numpy(np.ascontiguousarray(self._crop(pixels[0].permute(1, 2, 0).numpy())))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """The width and height that open_clip resizes to, before it crops or pads."""
        if self._mode == "squash":
            return self._width, self._height
        if self._mode == "shortest" and self._height == self._width:
            shorter = self._width
            return max(shorter, int(shorter * width / height)), max(shorter, int(shorter * height / width))
        times = (width / self._width, height / self._height)
        ratio = max(times) if self._mode == "longest" else min(times)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def _crop(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The middle of bytes of shape (height, width, 3), with a border where there are too few."""
        height, width, _ = pixels.shape
        if height < self._height or width < self._width:
            bordered = np.full((max(height, self._height), max(width, self._width), 3), self._fill, np.uint8)
            top, left = max(0, self._height - height) // 2, max(0, self._width - width) // 2
            bordered[top : top + height, left : left + width] = pixels
            pixels, (height, width, _) = bordered, bordered.shape
        top, left = round((height - self._height) / 2), round((width - self._width) / 2)
        return pixels[top : top + self._height, left : left + self._width]

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
        return image.resize((self._width, self._height), _FILTERS[self._filter], box=box)


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image))
