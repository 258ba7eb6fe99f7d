"""What any thread of the vendor frees can be given back to the system."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.vendor_process import VendorProcess
from tests.vendor_service.http.test_fuzz import Fuzzer

HEAP_BYTES = 1 << 26  # what glibc reserves for a heap beside the first, at a multiple of as much

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")


def test_the_vendors_threads_share_one_heap(vendor_process: VendorProcess) -> None:
    Fuzzer(vendor_process).throw(range(8))
    assert not list(other_heaps(Path(f"/proc/{vendor_process.pid}/maps").read_text()))


def other_heaps(maps: str) -> Iterator[int]:
    """Where each heap beside the first begins: its used part lies before a rest that is reserved."""
    lines = [line.split() for line in maps.splitlines()]
    for (used, mode, *_), (rest, rest_mode, *_) in pairwise(lines):
        start, end = int(used.split("-")[0], 16), int(rest.split("-")[1], 16)
        if end - start == HEAP_BYTES and start % HEAP_BYTES == 0 and (mode, rest_mode) == ("rw-p", "---p"):
            yield start
