"""The parts of a PNG or JPEG file, counted by their heads: they decide how much work decoding is."""

import re
from collections.abc import Callable

_PNG = b"\x89PNG\r\n\x1a\n"
_HEAD_AND_CHECK = 12  # bytes of a PNG chunk beside its content
_START = b"\xff\xd8"
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a segment
# In between there are stuffed zeros, restarts and fill bytes, which are no markers.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def count_scans(file: bytes, most: int) -> int:
    """How many scans a JPEG has, counted up to one more than `most`; 0 for another file.

    Segments are passed over, since a thumbnail among the metadata has scans of its own.
    """
    if not file.startswith(_START):
        return 0
    scans, at = 0, len(_START)
    while scans <= most and (marker := _MARKER.search(file, at)):
        kind = file[marker.end() - 1]
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        at = _after_segment(file, at)
    return scans


def count_parts(file: bytes, most: int) -> int:
    """How many chunks a PNG or segments a JPEG has, counted up to one more than `most`; 0 for others."""
    if file.startswith(_PNG):
        return _count(file, len(_PNG), most, _after_chunk)
    return _count(file, len(_START), most, _after_segment) if file.startswith(_START) else 0


def _count(file: bytes, at: int, most: int, after: Callable[[bytes, int], int]) -> int:
    parts = 0
    while parts <= most and 0 <= (at := after(file, at)) <= len(file):
        parts += 1
    return parts


def _after_chunk(file: bytes, at: int) -> int:
    """Where the PNG chunk ends that begins there; beyond the file, where it is cut off."""
    return at + _HEAD_AND_CHECK + int.from_bytes(file[at : at + 4], "big")


def _after_segment(file: bytes, at: int) -> int:
    """Where the JPEG segment ends that begins there or later; -1 where there is none."""
    marker = _MARKER.search(file, at)
    if marker is None or file[marker.end() - 1] == _END_OF_IMAGE:
        return -1
    at = marker.end()
    return at if file[at - 1] in _ALONE else at + max(2, int.from_bytes(file[at : at + 2], "big"))
