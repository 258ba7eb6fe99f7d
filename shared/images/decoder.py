"""Decoding images that nobody vouches for: whatever is wrong with one is found here.

Pillow decodes all formats. For JPEG, simplejpeg would save up to a third of the time, as
benchmarks/decoding.py shows; but what it makes of a damaged file is not what Pillow, and so open_clip, makes
of it, and a second decoder is a second thing for strangers to break.
"""

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from shared.errors import APIError, ErrorCode
from shared.images.limits import MOST_SCANS, ImageLimits, check_parts, count_scans, from_base64
from shared.processes.forked import Allow, NeedsMore
from shared.processes.pool import PoolSpec
from shared.processes.worker import ArenaLayout

# What images may take while they are decoded beside each other. Half of it is shared out evenly, and the
# other half is for what images take beyond their shares. One for which that is too little, as one of 50
# megapixels that takes 600 MB, has no other beside it that needs more than its share.
_MEMORY_BYTES = 1 << 30
_SPARE_MEMORY_BYTES = _MEMORY_BYTES // 2
_SLOTS = 32
# A JPEG of several scans keeps its coefficients, two bytes for each band at the full size of the file.
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

Pixels = NDArray[np.uint8]


class Preprocessor(Protocol):
    """Makes of an opened image the pixels that the model is given, and says what that takes."""

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats that may be opened, as Pillow names them."""

    @property
    def image_bytes(self) -> int:
        """How many bytes the pixels of an image have."""

    def bytes_a_pixel(self, form: str | None) -> int:
        """The memory that decoding and converting takes for each pixel of a file of this format."""

    def draft_size(self, width: int, height: int) -> tuple[int, int]:
        """The width and height at which a file of that size may be decoded, if its decoder can choose."""

    def pixels(self, image: Image.Image) -> Pixels:
        """What the model is given of an image that is not decoded yet, `image_bytes` in all.

        Raises:
            APIError: it is of a kind that is not taken.
        """

    def unknown(self, data: bytes) -> APIError:
        """The refusal of a file that none of the formats knows."""


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
        pixels = max(map(self._preprocessor.bytes_a_pixel, self._preprocessor.formats))
        return pixels * self._limits.max_pixels + _COPIES_OF_FILE * self._limits.max_bytes + _SPARE_BYTES

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
        output[:] = np.ascontiguousarray(pixels).data.cast("B")

    def decode(self, file: bytes | str) -> Pixels:
        """The preprocessed pixels of a file, or of its base64: bytes of shape (height, width, 3).

        Raises:
            APIError: `empty_input`, `invalid_image`, `image_too_large` or `unsupported_image_format`.
        """
        self._limits.check(file)
        data = file if isinstance(file, bytes) else from_base64(file.encode())
        return self._preprocessed(data, lambda _: None, free=True)

    def _preprocessed(self, data: bytes, allow: Allow, *, free: bool) -> Pixels:
        if not data:
            raise APIError(ErrorCode.EMPTY_INPUT, "the image file is empty")
        try:
            check_parts(data)
            # The header alone is read here, so a small file that declares a huge image costs nothing.
            with Image.open(BytesIO(data), formats=self._preprocessor.formats) as image:
                pixels = image.width * image.height
                scans = count_scans(data, MOST_SCANS)
                self._limits.check_work(image.width, image.height, scans)
                image.draft(None, self._preprocessor.draft_size(*image.size))  # JPEG can skip fine detail
                more_bytes = self._memory(image, pixels, scans) - self._share_bytes
                if more_bytes > 0 and not free:
                    raise NeedsMore("large", more_bytes)
                if _passes(scans) * pixels > _LONG_PIXELS and not free:
                    raise NeedsMore("long")
                allow(_SECONDS + _SECONDS_A_PIXEL * pixels)
                return self._preprocessor.pixels(image)
        except (APIError, NeedsMore):
            raise
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            message = f"the image has more than {self._limits.max_pixels} pixels"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message) from error
        except UnidentifiedImageError as error:
            raise self._preprocessor.unknown(data) from error
        except MemoryError as error:
            message = "decoding takes more memory than an image may take"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message) from error
        except Exception as error:
            # Decoders answer damaged files with almost any exception; each of them means the same here.
            raise APIError(ErrorCode.INVALID_IMAGE, "the image file is damaged or cut off") from error

    def _memory(self, image: Image.Image, pixels: int, scans: int) -> int:
        """The bytes that decoding takes, of an image that had `pixels` before it is decoded at less."""
        each = self._preprocessor.bytes_a_pixel(image.format)
        kept = _BYTES_A_COEFFICIENT * len(image.getbands()) * pixels if scans > 1 else 0
        return each * image.width * image.height + kept


def decoding(
    preprocessor: Preprocessor,
    limits: ImageLimits,
    processes: int,
    *,
    slots: int = _SLOTS,
    niceness_of_heavy: int | None = None,
) -> PoolSpec:
    """The processes that decode images, `slots` of one caller at a time, and what these may take.

    With a `niceness_of_heavy`, one more alone decodes heavy images, and gives way to all else.
    """
    decoder = ImageDecoder(preprocessor, limits, (_MEMORY_BYTES - _SPARE_MEMORY_BYTES) // processes)
    # As base64, a file may come with a third more.
    layout = ArenaLayout(slots, preprocessor.image_bytes, (1 << 20) + limits.max_bytes // 3 * 4 + 8)
    of_heavy = None
    if niceness_of_heavy is not None:
        alone = replace(layout, slots=1)
        of_heavy = PoolSpec(1, decoder, alone, _SPARE_MEMORY_BYTES, niceness=niceness_of_heavy)
    return PoolSpec(processes, decoder, layout, _SPARE_MEMORY_BYTES, of_heavy=of_heavy)


def _passes(scans: int) -> float:
    """How many times the work of a JPEG of one scan decoding is, roughly."""
    # Only JPEGs have scans. Pillow's `format` does not tell them: with an index of further images it is MPO.
    return max(1.0, scans / _SCANS_OF_A_PASS) if scans else _PASSES_OF_OTHERS
