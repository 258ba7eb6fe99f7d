"""The parts of a PNG or JPEG file, counted by their heads: they decide how much work decoding is."""

import re
from collections.abc import Iterator
from itertools import islice, takewhile

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
