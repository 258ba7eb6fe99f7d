"""From untrusted bytes to what the model sees: whatever is wrong with an image is found here, uncharged.

Pillow decodes all three formats. For JPEG, simplejpeg would save up to a third of the time, as
benchmarks/decoding.py shows; but what it makes of a damaged file is not what Pillow, and so open_clip, makes
of it, and a second decoder is a second thing for strangers to break.
"""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Protocol

import torch
from PIL import Image, UnidentifiedImageError

from shared.errors import ErrorCode
from vendor_service.errors import Refusal

_FORMATS = ("PNG", "JPEG", "WEBP")
_BYTES_A_PIXEL = 12  # decoded, converted and handed on, four each
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: bytes of its file, and pixels (width x height)."""

    max_bytes: int
    max_pixels: int


class Eye(Protocol):
    """What sees the pixels, and how many of them it needs."""

    def enough(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which a file of that size may be decoded, if its decoder can choose."""

    def resize(self, image: Image.Image) -> torch.Tensor:
        """What is seen of an RGB image."""


class ImageDecoder:
    """Decodes images that nobody vouches for, on any number of threads, within so much memory.

    Where `memory_bytes` are not enough for all that is to be decoded at once, threads wait for each other;
    an image that alone would need more is decoded alone.
    """

    def __init__(self, eye: Eye, limits: ImageLimits, memory_bytes: int) -> None:
        self._eye = eye
        self._limits = limits
        self._memory_bytes = memory_bytes
        self._taken = 0
        self._changed = threading.Condition()

    def decode(self, file: bytes | str) -> torch.Tensor:
        """What the eye sees of a PNG, JPEG or WebP file, or of the base64 of one: bytes, (height, width, 3).

        As in open_clip's own pipeline, an image is converted to RGB first, where transparency is dropped
        rather than blended, EXIF orientation is not applied, and of an animation the first frame is taken.

        Raises:
            Refusal: `invalid_image`, `image_too_large` or `unsupported_image_format`.
        """
        # Four characters of base64 hold three bytes: the size is known before anything is decoded.
        size = len(file) if isinstance(file, bytes) else len(file) // 4 * 3 - file[-2:].count("=")
        if size > self._limits.max_bytes:
            message = f"the image file is larger than {self._limits.max_bytes} bytes"
            raise Refusal(ErrorCode.IMAGE_TOO_LARGE, message)
        data = file if isinstance(file, bytes) else _from_base64(file)
        if not data:
            raise Refusal(ErrorCode.EMPTY_INPUT, "the image file is empty")
        return self._see(data)

    def _see(self, data: bytes) -> torch.Tensor:
        too_large = Refusal(
            ErrorCode.IMAGE_TOO_LARGE, f"the image has more than {self._limits.max_pixels} pixels"
        )
        try:
            # The header alone is read here, so a small file that declares a huge image costs nothing.
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                if image.width * image.height > self._limits.max_pixels:
                    raise too_large
                image.draft(None, self._eye.enough(*image.size))  # JPEG can leave out fine detail unread
                with self._memory(image.width * image.height * _BYTES_A_PIXEL):
                    return self._eye.resize(_loaded_rgb(image))
        except Refusal:
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise too_large from error
        except UnidentifiedImageError as error:
            if data.startswith(_SIGNATURES):
                raise Refusal(ErrorCode.INVALID_IMAGE, "the image file is damaged") from error
            message = "the file is not a PNG, JPEG or WebP image"
            raise Refusal(ErrorCode.UNSUPPORTED_IMAGE_FORMAT, message) from error
        except Exception as error:
            # Decoders answer damaged files with almost any exception; each of them means the same here.
            raise Refusal(ErrorCode.INVALID_IMAGE, "the image file is damaged or cut off") from error

    @contextmanager
    def _memory(self, wanted: int) -> Iterator[None]:
        wanted = min(wanted, self._memory_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + wanted <= self._memory_bytes)
            self._taken += wanted
        try:
            yield
        finally:
            with self._changed:
                self._taken -= wanted
                self._changed.notify_all()


def _from_base64(encoded: str) -> bytes:
    try:
        if len(encoded) % 4:
            raise ValueError("padding is missing")
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise Refusal(ErrorCode.INVALID_IMAGE, "the image is not valid base64") from error


def _loaded_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        # The same pixels as by the direct way, which warns about transparency.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
