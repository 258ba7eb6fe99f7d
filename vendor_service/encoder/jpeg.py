"""The scans of a JPEG file, counted by its markers: they decide how much work decoding is."""

import re

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
        at = marker.end()
        kind = file[at - 1]
        if kind == _END_OF_IMAGE:
            break
        scans += kind == _START_OF_SCAN
        if kind not in _ALONE:
            at += max(2, int.from_bytes(file[at : at + 2], "big"))
    return scans
