"""Image files to RGB pixels, with limits on what is accepted."""

from collections.abc import Iterator
from glob import glob
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from client.errors import UsageError

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


def find_images(word: str) -> Iterator[Path]:
    """The image files that a path or a pattern such as `shots/**/*` means, folders being searched below.

    A file that is named itself is taken whatever its name; others must be named as images.

    Raises:
        UsageError: nothing is there.
    """
    path = Path(word)
    if path.is_dir():
        yield from sorted(f for f in path.rglob("*") if f.suffix.lower() in SUFFIXES and not f.is_dir())
    elif path.exists():
        yield path
    elif matches := [Path(match) for match in sorted(glob(word, recursive=True))]:  # noqa: PTH207 (absolute patterns)
        yield from (m for m in matches if m.suffix.lower() in SUFFIXES and not m.is_dir())
    else:
        raise UsageError(f"{path} does not exist.")


def decode(content: bytes) -> Pixels:
    """Decode a PNG, JPEG or WebP file to RGB of shape (height, width, 3).

    The first frame of an animation is taken, EXIF orientation is applied, and transparency is laid on white.

    Raises:
        UnreadableImage: the bytes are not a whole image of these formats within `MAX_PIXELS`.
    """
    return np.asarray(_rgb(content))


def decode_square(content: bytes, side: int) -> tuple[Pixels, float]:
    """Decode as `decode` does, and squeeze or stretch into a square of shape (side, side, 3).

    Returns the pixels and the image's aspect, which is its width / height.

    Raises:
        UnreadableImage: as `decode`.
    """
    image = _rgb(content, side)
    square = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square), image.width / image.height


def _rgb(content: bytes, side: int | None = None) -> Image.Image:
    """The image; a JPEG that is much larger than a square of `side` is decoded at a fraction of its size."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise UnreadableImage(f"{width} x {height} pixels are too many")
            if side is not None:
                image.draft("RGB", (2 * side, 2 * side))
            return _on_white(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError, Image.DecompressionBombError) as error:
        raise UnreadableImage("not a whole PNG, JPEG or WebP image") from error


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    return ground.convert("RGB")
