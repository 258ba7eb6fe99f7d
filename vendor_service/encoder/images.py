"""From untrusted bytes to what the model sees: whatever is wrong with an image is found here, uncharged.

Pillow decodes all three formats. For JPEG, simplejpeg would save up to a third of the time, as
benchmarks/decoding.py shows; but what it makes of a damaged file is not what Pillow, and so open_clip, makes
of it, and a second decoder is a second thing for strangers to break.
"""

from collections.abc import Callable
from io import BytesIO
from typing import Protocol

import torch
from PIL import Image, UnidentifiedImageError

from shared.errors import ErrorCode
from shared.http.images import MOST_SCANS, ImageLimits, check_parts, count_scans, from_base64
from vendor_service.encoder.processes.forked import Allow, NeedsMore
from vendor_service.errors import APIError

_FORMATS = ("PNG", "JPEG", "WEBP")
# What decoding takes, measured: decoded, converted and handed on, four bytes each; WebP's own library keeps
# more, and a JPEG of several scans its coefficients, two bytes for each band at the full size of the file.
_BYTES_A_PIXEL = 12
_BYTES_A_PIXEL_OF_WEBP = 16
_BYTES_A_COEFFICIENT = 2
_COPIES_OF_FILE = 4
_SPARE_BYTES = 64 << 20
# A JPEG of one scan and of so many pixels takes a third of a second. Four scans, each of a part of the
# detail, are a pass over all of it; PNG and WebP take twice the time of JPEG.
_LONG_PIXELS = 25_000_000
_SCANS_OF_A_PASS = 4
_PASSES_OF_OTHERS = 2.0
# Processor time: three times as much as the slowest kind of file (a WebP without loss) took.
_SECONDS = 0.5
_SECONDS_A_PIXEL = 0.25e-6
_SIGNATURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF")


class Preprocessor(Protocol):
    """Makes of an image the pixels that the model is given, and says how many of them it needs."""

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which a file of that size may be decoded, if its decoder can choose."""

    def resize(self, image: Image.Image) -> torch.Tensor:
        """The pixels that the model is given of an RGB image."""


class ImageDecoder:
    """Decodes images that nobody vouches for; it is a `Task`, for a process that can be killed.

    An image that needs more than `memory_bytes`, or a third of a second and more, is decoded only where it is
    said to be `free`: those who decode beside each other have so much memory each, and who needs more says
    how much more.
    """

    def __init__(self, preprocessor: Preprocessor, limits: ImageLimits, memory_bytes: int) -> None:
        self._preprocessor = preprocessor
        self._limits = limits
        self._share_bytes = memory_bytes

    @property
    def seconds(self) -> float:
        """The processor time until the size of an image is known."""
        return _SECONDS

    @property
    def memory_bytes(self) -> int:
        """The most that an image within the limits can take."""
        pixels = max(_BYTES_A_PIXEL, _BYTES_A_PIXEL_OF_WEBP) * self._limits.max_pixels
        return pixels + _COPIES_OF_FILE * self._limits.max_bytes + _SPARE_BYTES

    def do(
        self,
        content: bytes,
        output: memoryview,
        allow: Callable[[float], None],
        *,
        encoded: bool,
        free: bool,
    ) -> None:
        """Write the preprocessed pixels of a file, or of the base64 of one, to `output`.

        Raises:
            APIError: as `decode` does.
            NeedsMore: it needs more than its share of memory or time, and is not `free`.
        """
        Image.MAX_IMAGE_PIXELS = None  # in this process the operator's limit alone holds, not Pillow's
        pixels = self._preprocessed(from_base64(content) if encoded else content, allow, free=free)
        output[:] = pixels.contiguous().numpy().data.cast("B")

    def decode(self, file: bytes | str) -> torch.Tensor:
        """The preprocessed pixels of a PNG, JPEG or WebP file, or of its base64: bytes, (height, width, 3).

        As in open_clip's own pipeline, an image is converted to RGB first, where transparency is dropped
        rather than blended, EXIF orientation is not applied, and of an animation the first frame is taken.

        Raises:
            APIError: `empty_input`, `invalid_image`, `image_too_large` or `unsupported_image_format`.
        """
        self._limits.check(file)
        data = file if isinstance(file, bytes) else from_base64(file.encode())
        return self._preprocessed(data, lambda _: None, free=True)

    def _preprocessed(self, data: bytes, allow: Allow, *, free: bool) -> torch.Tensor:
        if not data:
            raise APIError(ErrorCode.EMPTY_INPUT, "the image file is empty")
        try:
            check_parts(data)
            # The header alone is read here, so a small file that declares a huge image costs nothing.
            with Image.open(BytesIO(data), formats=_FORMATS) as image:
                pixels = image.width * image.height
                scans = count_scans(data, MOST_SCANS)
                self._limits.check_work(pixels, scans)
                image.draft(None, self._preprocessor.draft_size(*image.size))  # JPEG can skip fine detail
                more_bytes = _memory(image, pixels, scans) - self._share_bytes
                if more_bytes > 0 and not free:
                    raise NeedsMore("large", more_bytes)
                if _passes(scans) * pixels > _LONG_PIXELS and not free:
                    raise NeedsMore("long")
                allow(_SECONDS + _SECONDS_A_PIXEL * pixels)
                return self._preprocessor.resize(_loaded_rgb(image))
        except (APIError, NeedsMore):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            message = f"the image has more than {self._limits.max_pixels} pixels"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message) from error
        except UnidentifiedImageError as error:
            if data.startswith(_SIGNATURES):
                raise APIError(ErrorCode.INVALID_IMAGE, "the image file is damaged") from error
            message = "the file is not a PNG, JPEG or WebP image"
            raise APIError(ErrorCode.UNSUPPORTED_IMAGE_FORMAT, message) from error
        except MemoryError as error:
            message = "decoding takes more memory than an image may take"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message) from error
        except Exception as error:
            # Decoders answer damaged files with almost any exception; each of them means the same here.
            raise APIError(ErrorCode.INVALID_IMAGE, "the image file is damaged or cut off") from error


def _memory(image: Image.Image, pixels: int, scans: int) -> int:
    """The bytes that decoding takes, of an image that has `pixels` before it is decoded at less than that."""
    each = _BYTES_A_PIXEL_OF_WEBP if image.format == "WEBP" else _BYTES_A_PIXEL
    kept = _BYTES_A_COEFFICIENT * len(image.getbands()) * pixels if scans > 1 else 0
    return each * image.width * image.height + kept


def _passes(scans: int) -> float:
    """How many times the work of a JPEG of one scan decoding is, roughly."""
    # Only JPEGs have scans. Pillow's `format` does not tell them: with an index of further images it is MPO.
    return max(1.0, scans / _SCANS_OF_A_PASS) if scans else _PASSES_OF_OTHERS


def _loaded_rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode == "RGB":
        return image
    if image.mode == "P" and "transparency" in image.info:
        # The same pixels as by the direct way, which warns about transparency.
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")
