"""Bounds on the images that are decoded for a stranger: the file, its pixels, and the work of decoding it."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, takewhile

from shared.errors import APIError, ErrorCode

# The longer side, in pixels. Panoramas of phones have up to about 20,000 and WebP has 16,383; of a line of 50
# million pixels a decoder does as much for each as for a whole row.
MOST_SIDE = 32_768
# Encoders make about ten scans. Each of them goes over the whole image.
MOST_SCANS = 64
_MOST_SCANS_OF_LARGEST = 24
# Encoders write PNG chunks of 8 kB and more, and a JPEG has a dozen segments. Decoders look at each of them.
_MOST_PARTS = 10_000

_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD_AND_CHECK = 12  # bytes of a PNG chunk beside its content
_START = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
# In between there are stuffed zeros, restarts and fill bytes, which are no markers.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


@dataclass(frozen=True)
class ImageLimits:
    """The largest image that is decoded: bytes of its file, pixels (width x height), and its longer side."""

    max_bytes: int
    max_pixels: int
    max_side: int = MOST_SIDE

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

    def check_work(self, width: int, height: int, scans: int) -> None:
        """Look at what decoding would take, before any of it is done.

        Raises:
            APIError: `image_too_large`.
        """
        if max(width, height) > self.max_side:
            message = f"the image is longer than {self.max_side} pixels on a side"
            raise APIError(ErrorCode.IMAGE_TOO_LARGE, message)
        pixels = width * height
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


def count_scans(file: bytes, most: int) -> int:
    """How many scans a JPEG has, counted up to one more than `most`; 0 for another file.

    Segments are passed over, since a thumbnail among the metadata has scans of its own.
    """
    if not file.startswith(_START):
        return 0
    scans = 0
    for kind, _ in _segments(file):
        scans += kind == _START_OF_SCAN
        if scans > most:
            break
    return scans


def count_parts(file: bytes, most: int) -> int:
    """How many chunks a PNG or segments a JPEG has, counted up to one more than `most`; 0 for others."""
    if file.startswith(_PNG):
        ends = _chunk_ends(file)
    elif file.startswith(_START):
        ends = (end for _, end in _segments(file))
    else:
        return 0
    whole = takewhile(lambda end: end <= len(file), ends)
    return sum(1 for _ in islice(whole, most + 1))


def _chunk_ends(file: bytes) -> Iterator[int]:
    """Where each PNG chunk ends; beyond the file, where it is cut off."""
    at = len(_PNG)
    while True:
        at += _HEAD_AND_CHECK + int.from_bytes(file[at : at + 4], "big")
        yield at


def _segments(file: bytes) -> Iterator[tuple[int, int]]:
    """The marker of each JPEG segment before the end of the image, and where the segment ends."""
    at = len(_START)
    while marker := _MARKER.search(file, at):
        at = marker.end()
        kind = file[at - 1]
        if kind == _END_OF_IMAGE:
            return
        if kind not in _ALONE:
            at += max(2, int.from_bytes(file[at : at + 2], "big"))
        yield kind, at
