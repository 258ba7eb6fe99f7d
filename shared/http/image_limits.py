"""The largest image that is decoded for a stranger: its file, its pixels, and the work that decoding is."""

import base64
from dataclasses import dataclass

from shared.errors import APIError, ErrorCode
from shared.http.parts import count_parts

# Encoders make about ten scans. Each of them goes over the whole image.
MOST_SCANS = 64
_MOST_SCANS_OF_LARGEST = 24
# Encoders write PNG chunks of 8 kB and more, and a JPEG has a dozen segments. Decoders look at each of them.
_MOST_PARTS = 10_000


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: bytes of its file, and pixels (width x height)."""

    max_bytes: int
    max_pixels: int

    def check(self, file: bytes | str) -> None:
        """Look at the size of a file, or of the base64 of one.

        Raises:
            APIError: `empty_input`, `image_too_large`, or `invalid_image` for what is no base64.
        """
        if not file:
            raise APIError(ErrorCode.EMPTY_INPUT, "the image file is empty")
        # Four characters of base64 hold three bytes: the size is known before anything is decoded.
        size = len(file) if isinstance(file, bytes) else len(file) // 4 * 3 - file[-2:].count("=")
        if size > self.max_bytes:
            message = f"the image file is larger than {self.max_bytes} bytes"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message)
        if isinstance(file, str) and not file.isascii():
            raise APIError(ErrorCode.INVALID_IMAGE, "the image is not valid base64")

    def check_work(self, pixels: int, scans: int) -> None:
        """Look at what decoding would take, before any of it is done.

        Raises:
            APIError: `image_too_large`.
        """
        if pixels > self.max_pixels:
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, f"the image has more than {self.max_pixels} pixels")
        most = min(MOST_SCANS, max(1, _MOST_SCANS_OF_LARGEST * self.max_pixels // max(1, pixels)))
        if scans > most:
            message = f"the JPEG has more scans than the {most} that one of its size may have; save it again"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message)


def check_parts(data: bytes) -> None:
    """Look at how many pieces a file is in.

    Raises:
        APIError: `image_too_large`.
    """
    if count_parts(data, _MOST_PARTS) > _MOST_PARTS:
        message = f"the image file has more than {_MOST_PARTS} chunks or segments; save it again"
        raise APIError(ErrorCode.IMAGE_TOO_LARGE, message)


def from_base64(encoded: bytes) -> bytes:
    """The file that this is the base64 of.

    Raises:
        APIError: `invalid_image`.
    """
    try:
        if len(encoded) % 4:
            raise ValueError("padding is missing")
        return base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise APIError(ErrorCode.INVALID_IMAGE, "the image is not valid base64") from error
