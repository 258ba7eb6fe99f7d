"""The bytes that are sent of an image: its file's own, or a PNG of what the student sees."""

from io import BytesIO

import numpy as np
from PIL import Image

from client.data.images import Pixels, seen_otherwise

# Of the shorter side of a PNG that is made here, at most: no CLIP of today sees more.
_SIDE = 384


def as_sent(content: bytes) -> bytes:
    """The bytes to send of an image file.

    They are the file's own, unless it has a format that vendors need not know, or a plain conversion to RGB
    shows something else than the student sees (`seen_otherwise`): then a PNG.

    Raises:
        UnreadableImage: the content is no image.
    """
    seen = seen_otherwise(content)
    return content if seen is None else as_png(seen)


def as_png(pixels: Pixels) -> bytes:
    """A PNG of pixels (height, width, 3), reduced to at most 384 pixels on the shorter side."""
    file = BytesIO()
    Image.fromarray(_reduced(pixels)).save(file, "PNG", compress_level=6)
    return file.getvalue()


def _reduced(pixels: Pixels) -> Pixels:
    height, width = pixels.shape[:2]
    excess = min(height, width) / _SIDE
    if excess <= 1:
        return pixels
    size = (round(width / excess), round(height / excess))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))
