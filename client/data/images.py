"""Image files to RGB pixels, with limits on what is accepted."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, features

from client.data.members import read_member
from shared.images.limits import MOST_SIDE

HEIC_MISSING = "HEIC, which needs pillow-heif: pip install 'tuition[heic]'"
NO_MEMORY = "too little memory to read it"
# As Pillow names what every vendor takes as it is; an MPO file is a JPEG file with further pictures in it.
_SENT_AS_THEY_ARE = frozenset({"PNG", "JPEG", "MPO", "WEBP"})
# Formats of pictures as Pillow names them, and how their files are named.
FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif"),
}
HEIC_SUFFIXES = frozenset(FORMATS["HEIF"])
# Pillow and its libraries, as `features.version` names them.
_CODECS = ("pil", "zlib", "zlib_ng", "libjpeg_turbo", "jpg", "webp", "libtiff", "avif")
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"})
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
    """The bytes are not a whole image of a known format within the limits; the message says why.

    `kind` is what it is counted under, where the message tells more than that. `may_pass` is set where the
    reason is the system's, and the file may be an image all the same.
    """

    def __init__(self, reason: str, kind: str = "", *, may_pass: bool = False) -> None:
        super().__init__(reason)
        self.kind = kind
        self.may_pass = may_pass


@cache
def suffixes() -> frozenset[str]:
    """The endings of files that are pictures by name, in lower case: of formats that can be read here."""
    return frozenset(suffix for name in formats() for suffix in FORMATS[name])


def accepted() -> str:
    """The same, as a message lists them."""
    return ", ".join(sorted(suffixes()))


@cache
def formats() -> tuple[str, ...]:
    """The formats that Pillow may open: AVIF if it was built with it, HEIC if pillow-heif is installed."""
    missing = set() if features.check("avif") else {"AVIF"}
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        missing.add("HEIF")
    else:
        register_heif_opener()
    return tuple(name for name in FORMATS if name not in missing)


@cache
def codecs() -> str:
    """The versions of what reads and writes pictures here: others may make other bytes of the same file."""
    versions = [f"{name} {features.version(name)}" for name in _CODECS]
    if "HEIF" in formats():
        from pillow_heif import libheif_version

        versions.append(f"heif {libheif_version()}")
    return ", ".join(versions)


def read_image(path: Path) -> bytes:
    """The bytes of an image file, or of an image that lies in a file with others.

    Raises:
        UnreadableImage: it is not a regular file, cannot be read, is empty or too large.
    """
    try:
        content = read_member(path, MAX_BYTES)
    except OSError as error:
        raise UnreadableImage(error.strerror or "cannot be read", may_pass=True) from error
    except ValueError as error:
        raise UnreadableImage(str(error)) from error
    if content is None:
        return _read_file(path)
    if not content:
        raise UnreadableImage("empty file")
    return content


def _read_file(path: Path) -> bytes:
    try:
        found = path.stat()
        if not S_ISREG(found.st_mode):  # a device or a pipe may never end
            raise UnreadableImage("not a regular file")
        content = b""
        if found.st_size <= MAX_BYTES:
            with path.open("rb") as file:
                content = file.read(found.st_size + 1)
                if len(content) > found.st_size:  # it has grown, or the system does not tell its size
                    content += file.read(MAX_BYTES - found.st_size)
    except OSError as error:
        nowhere = isinstance(error, FileNotFoundError) and path.is_symlink()
        raise UnreadableImage(
            "a broken link" if nowhere else error.strerror or "cannot be read", may_pass=True
        ) from error
    if max(found.st_size, len(content)) > MAX_BYTES:
        raise UnreadableImage(f"larger than {MAX_BYTES // 2**20} MiB")
    if not content:
        raise UnreadableImage("empty file")
    return content


def decode(content: bytes) -> Pixels:
    """Decode an image file to RGB of shape (height, width, 3).

    The first frame of an animation, and the first page of a TIFF file, is taken, EXIF orientation is applied,
    transparency is laid on white, and of 16 bits the upper 8 are taken.

    Raises:
        UnreadableImage: the bytes are not a whole image of these formats within `MAX_PIXELS` and `MOST_SIDE`.
    """
    with _opened(content) as image:
        return np.asarray(_seen(image))


@dataclass(frozen=True)
class Glance:
    """The facts of an image that one reading of its file gives.

    Attributes:
        side: the shorter side in pixels.
        small: the image in RGB, perhaps at a fraction of its size.
        otherwise: what is seen of it, if a vendor that is sent the file would see something else.
    """

    side: int
    small: Image.Image
    otherwise: Pixels | None


def glance(content: bytes, side: int) -> Glance:
    """Decode as `decode` does; a JPEG that a vendor sees the same way at down to an eighth of its size.

    Then no side is below `side` pixels. All of the data is read, and most of the pixels are not made.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _opened(content) as image:
        known = _is_known(image)
        if known and _is_plain(image):
            shorter = min(image.size)
            image.draft("RGB", (side, side))
            return Glance(shorter, _seen(image), None)
        seen = _seen(image)
        pixels = np.asarray(seen)
        alike = known and np.array_equal(_converted(image), pixels)
        return Glance(min(seen.size), seen, None if alike else pixels)


def seen_otherwise(content: bytes) -> Pixels | None:
    """The pixels of `decode`, unless a vendor that is sent the file sees the same.

    It does where it knows the format and converts to RGB and does no more, as open_clip does. Of most files
    the header tells that this suffices.

    Raises:
        UnreadableImage: as `decode`, if more than the header is read.
    """
    with _opened(content) as image:
        return otherwise(image)


def otherwise(image: Image.Image) -> Pixels | None:
    """The same of an opened image.

    Raises:
        UnreadableImage: its values have 32 bits.
        Exception: whatever its decoder raises.
    """
    known = _is_known(image)
    if known and _is_plain(image):
        return None
    pixels = np.asarray(_seen(image))
    return None if known and np.array_equal(_converted(image), pixels) else pixels


def decode_square(content: bytes, side: int) -> tuple[Pixels, float]:
    """Decode as `decode` does, and squeeze or stretch into a square of shape (side, side, 3).

    Returns:
        the pixels, and the image's aspect, which is its width / height.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _opened(content) as image:
        image.draft(None, draft_size(side))
        return squeezed(image, side)


def draft_size(side: int) -> tuple[int, int]:
    """At least how many pixels of a JPEG are decoded for a square of `side` pixels."""
    return 2 * side, 2 * side


def squeezed(image: Image.Image, side: int) -> tuple[Pixels, float]:
    """The same of an opened image, which is decoded here.

    Raises:
        UnreadableImage: its values have 32 bits.
        Exception: whatever its decoder raises.
    """
    seen = _seen(image)
    square = seen.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=3.0)
    return np.asarray(square), seen.width / seen.height


def square_of(image: Image.Image, side: int) -> Pixels:
    """The pixels of `decode_square`, of an image that somebody else has opened or made.

    Raises:
        UnreadableImage: as `decode`.
    """
    with _translated(lambda: UnreadableImage("not a readable picture")):
        _check_size(image)
        return squeezed(image, side)[0]


def pixels_of(image: Image.Image) -> Pixels:
    """The pixels of `decode`, of an image that `square_of` has taken."""
    return np.asarray(_seen(image))


@contextmanager
def _opened(content: bytes) -> Iterator[Image.Image]:
    """The image, its header read; whatever its decoder raises is translated."""
    with _translated(lambda: unknown(content)), Image.open(BytesIO(content), formats=formats()) as image:
        _check_size(image)
        yield image


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS or max(image.size) > MOST_SIDE:
        size = f"{image.width} x {image.height}"
        raise UnreadableImage(f"{size} pixels are too many", "too many pixels")
    if not min(image.size):
        raise UnreadableImage("it has no pixels")


@contextmanager
def _translated(damaged: Callable[[], UnreadableImage]) -> Iterator[None]:
    """Translate what decoders raise: they answer damaged files with almost any exception."""
    try:
        yield
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage("its pixels are too many", "too many pixels") from error
    except Exception as error:
        if isinstance(error, MemoryError) or "out of memory" in str(error):  # as Pillow's decoders say it
            raise UnreadableImage(NO_MEMORY, may_pass=True) from error
        raise damaged() from error


def unknown(content: bytes) -> UnreadableImage:
    """The reason why a file cannot be decoded that none of the formats knows, or whose decoder gave up."""
    if _is_heic(content) and "HEIF" not in formats():
        return UnreadableImage(HEIC_MISSING, "HEIC")
    return UnreadableImage("not a readable picture")


def _seen(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode in ("I", "F"):  # Pillow would cut them off at 255; where white is, the file does not say
        raise UnreadableImage("values of 32 bits: save it with 8 or 16", "values of 32 bits")
    turn = _turn(image)
    return _on_white(_in_eight_bits(image if turn is None else image.transpose(turn)))


def _is_known(image: Image.Image) -> bool:
    return image.format in _SENT_AS_THEY_ARE


def _is_heic(content: bytes) -> bool:
    return content[4:8] == b"ftyp" and content[8:12] in _HEIC_BRANDS


def _is_plain(image: Image.Image) -> bool:
    return _turn(image) is None and not image.has_transparency_data and not _is_deep(image)


def _is_deep(image: Image.Image) -> bool:
    """Whether it is grey of 16 bits, in whatever order of bytes."""
    return image.mode.startswith("I;16")


def _converted(image: Image.Image) -> Pixels:
    """Converted to RGB, transparency dropped; by way of RGBA where Pillow would warn of that."""
    return np.asarray((image.convert("RGBA") if image.mode == "P" else image).convert("RGB"))


def _turn(image: Image.Image) -> Image.Transpose | None:
    """The turn that sets it upright; `ImageOps.exif_transpose` rewrites EXIF, and fails where it is odd."""
    return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """Deep grey as Pillow takes in deep colours, by the upper eight bits; it would cut grey off at 255."""
    if not _is_deep(image):
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
