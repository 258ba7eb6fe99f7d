"""Image files to RGB pixels, with limits on what is accepted."""

from collections.abc import Iterator
from contextlib import contextmanager
from glob import glob
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from client.errors import UsageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_BYTES = 64 * 2**20
MAX_PIXELS = 50_000_000
# What turns the pixels the right way up, by the EXIF orientation of their file.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

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

    The first frame of an animation is taken, EXIF orientation is applied, transparency is laid on white, and
    of 16 bits the upper 8 are taken.

    Raises:
        UnreadableImage: the bytes are not a whole image of these formats within `MAX_PIXELS`.
    """
    with _opened(content) as image:
        return np.asarray(_seen(image))


def decode_and_compare(content: bytes) -> tuple[Pixels, bool]:
    """Decode as `decode` does; and whether those see the same who convert to RGB and do no more."""
    with _opened(content) as image:
        pixels = np.asarray(_seen(image))
        return pixels, _is_plain(image) or np.array_equal(_converted(image), pixels)


def seen_otherwise(content: bytes) -> Pixels | None:
    """What `decode` gives, unless those see the same who convert to RGB and do no more, as open_clip does.

    Of most files the header tells that they do.

    Raises:
        UnreadableImage: as `decode`, if more than the header is read.
    """
    with _opened(content) as image:
        if _is_plain(image):
            return None
        pixels = np.asarray(_seen(image))
        return None if np.array_equal(_converted(image), pixels) else pixels


def decode_square(content: bytes, side: int) -> tuple[Pixels, float]:
    """Decode as `decode` does, and squeeze or stretch into a square of shape (side, side, 3).

    Returns the pixels and the image's aspect, which is its width / height.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _opened(content) as image:
        image.draft("RGB", (2 * side, 2 * side))  # a much larger JPEG is decoded at a fraction of its size
        seen = _seen(image)
    square = seen.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square), seen.width / seen.height


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, its header read; whatever its decoder raises is translated."""
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise UnreadableImage(f"{image.width} x {image.height} pixels are too many")
            yield image
    except UnreadableImage:
        raise
    except Exception as error:
        # Decoders answer damaged files with almost any exception; each of them means the same here.
        raise UnreadableImage("not a whole PNG, JPEG or WebP image") from error


def _seen(image: Image.Image) -> Image.Image:
    image.load()
    turn = _turn(image)
    return _on_white(_in_eight_bits(image if turn is None else image.transpose(turn)))


def _is_plain(image: Image.Image) -> bool:
    return _turn(image) is None and not image.has_transparency_data and image.mode != "I;16"


def _converted(image: Image.Image) -> Pixels:
    """Converted to RGB, transparency dropped; by way of RGBA where Pillow would warn of that."""
    return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns it the right way up; `ImageOps.exif_transpose` rewrites EXIF, and fails where it is odd."""
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as Pillow takes in deep colours, by the upper eight bits; it would cut grey off at 255."""
    if image.mode != "I;16":
        return image
    deep = np.asarray(image)
    grey = Image.fromarray((deep >> 8).astype(np.uint8))
    if "transparency" in image.info:
        grey.putalpha(Image.fromarray(np.where(deep == image.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, "white")
    ground.alpha_composite(layer)
    return ground.convert("RGB")
