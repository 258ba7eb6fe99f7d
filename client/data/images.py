"""Image files to RGB pixels, with limits on what is accepted."""

from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000

Pixels = NDArray[np.uint8]


class UnreadableImage(ValueError):
    """The bytes are not a whole PNG, JPEG or WebP image within the limits; the message says why."""


def read_image(path: Path) -> bytes:
    """The file's bytes.

    Raises:
        UnreadableImage: the file cannot be read, is empty or too large.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise UnreadableImage(f"larger than {MAX_BYTES // 2**20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableImage(error.strerror or "cannot be read") from error
    if not content:
        raise UnreadableImage("empty file")
    return content


def decode(content: bytes, *, short_side: int | None = None) -> Pixels:
    """Decode a PNG, JPEG or WebP file to RGB of shape (height, width, 3).

    The first frame of an animation is taken, EXIF orientation is applied, and transparency is laid on white.
    With `short_side`, a larger image is reduced until its shorter side has that many pixels.

    Raises:
        UnreadableImage: the bytes are not a whole image of these formats within `MAX_PIXELS`.
    """
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImage(f"{width} x {height} pixels are too many")
            if short_side is not None:
                image.draft("RGB", _reduced(width, height, short_side))
            rgb = _on_white(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, Image.DecompressionBombError) as error:
        raise UnreadableImage("not a whole PNG, JPEG or WebP image") from error
    if short_side is not None and min(rgb.size) > short_side:
        rgb = rgb.resize(_reduced(*rgb.size, short_side), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return np.asarray(rgb)


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    return ground.convert("RGB")


def _reduced(width: int, height: int, short_side: int) -> tuple[int, int]:
    scale = min(1.0, short_side / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


class PixelStore:
    """Decoded images by position; those that fit in `max_bytes` are decoded once and kept.

    Images are kept no larger than training needs (`short_side`), so a few thousand photographs fit in memory,
    and a data set of any size works: what does not fit is decoded again when it is drawn.
    """

    def __init__(self, paths: list[Path], *, short_side: int, max_bytes: int = 4 * 2**30) -> None:
        self._paths = paths
        self._short_side = short_side
        self._bytes_left = max_bytes
        self._kept: dict[int, Pixels] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def load(self, positions: list[int]) -> list[Pixels]:
        """Pixels of shape (height, width, 3) for each position, decoding in parallel what is not kept.

        Raises:
            UnreadableImage: a file has changed since it was checked, and is no longer an image.
        """
        missing = sorted({position for position in positions if position not in self._kept})
        decoded: dict[int, Pixels] = {}
        if missing:
            with ThreadPoolExecutor() as pool:
                decoded = dict(zip(missing, pool.map(self._decode, missing), strict=True))
            for position, pixels in decoded.items():
                if pixels.nbytes <= self._bytes_left:
                    self._bytes_left -= pixels.nbytes
                    self._kept[position] = pixels
        return [decoded[p] if p in decoded else self._kept[p] for p in positions]

    def _decode(self, position: int) -> Pixels:
        return decode(read_image(self._paths[position]), short_side=self._short_side)
