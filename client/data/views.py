"""Deterministic views of an image: crop, flip and colour follow from (image hash, view index) alone."""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

from client.data.images import Pixels, decode

# Of the released augmentation (docs/method.md): the area of a crop, and how far each colour may move.
_SMALLEST_CROP = 0.7
_JITTER = 0.3


@dataclass(frozen=True)
class View:
    """The parameters of one view; equal parameters give equal pixels, on any machine with the same Pillow.

    Attributes:
        index: 0 for the image itself, untouched; from 1 on, which of its further views.
        box: the crop as shares of width and height: left, top, right, bottom.
        flipped: whether it is mirrored, left to right.
        brightness: factor; 1.0 changes nothing. So for `contrast` and `saturation`.
    """

    index: int
    box: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    flipped: bool = False
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    @classmethod
    def of(cls, digest: str, index: int) -> "View":
        """The view that an image of this SHA-256 has at this index.

        A crop keeps the image's proportions and at least 0.7 of its area; every second one is mirrored.
        """
        if index == 0:
            return cls(0)
        rng = random.Random(f"view:{digest}:{index}")
        side = rng.uniform(_SMALLEST_CROP, 1.0) ** 0.5
        left, top = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side)
        flipped = rng.random() < 0.5
        colour = [rng.uniform(1 - _JITTER, 1 + _JITTER) for _ in range(3)]
        return cls(index, (left, top, left + side, top + side), flipped, *colour)

    def to_json(self) -> dict[str, Any]:
        """The parameters, to be stored beside what was bought."""
        return asdict(self)

    def apply(self, pixels: Pixels) -> Pixels:
        """The view's pixels (height, width, 3), from those of the image: what the student sees."""
        if self.index == 0:
            return pixels
        image = Image.fromarray(pixels)
        image = image.crop(_in_pixels(self.box, image.size))
        if self.flipped:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        image = ImageEnhance.Brightness(image).enhance(self.brightness)
        image = ImageEnhance.Contrast(image).enhance(self.contrast)
        return np.asarray(ImageEnhance.Color(image).enhance(self.saturation))

    def encode(self, content: bytes) -> bytes:
        """What is sent for this view of an image file: of view 0 its very bytes, else a lossless PNG.

        Raises:
            UnreadableImage: the content is no image.
        """
        if self.index == 0:
            return content
        file = BytesIO()
        Image.fromarray(self.apply(decode(content))).save(file, "PNG", compress_level=6)
        return file.getvalue()


ORIGINAL = View(0)


def _in_pixels(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """A box of shares in whole pixels, at least one each way."""
    width, height = size
    left, top = int(box[0] * width), int(box[1] * height)
    return left, top, max(left + 1, round(box[2] * width)), max(top + 1, round(box[3] * height))
