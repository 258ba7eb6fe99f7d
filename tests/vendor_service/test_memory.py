"""What is freed is given back to the system, by whichever thread it was taken."""

import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.vendor_process import VendorProcess, resident_bytes
from tests.vendor_service.test_fuzz import Fuzzer
from vendor_service import memory

PIECES = 1000
PIECE_BYTES = 100_000  # less than glibc takes from the system for one piece alone
HEAP_BYTES = 1 << 26  # what glibc reserves for a heap beside the first, at a multiple of as much

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")


def test_the_vendors_threads_share_one_heap(vendor_process: VendorProcess) -> None:
    Fuzzer(vendor_process).throw(range(8))
    assert not list(other_heaps(Path(f"/proc/{vendor_process.pid}/maps").read_text()))


def test_free_memory_between_what_is_kept_is_given_back() -> None:
    memory.give_back()
    before = resident_bytes(os.getpid())
    taken = [(b"x" * PIECE_BYTES, b"x" * (PIECE_BYTES // 50)) for _ in range(PIECES)]
    kept = [small for _, small in taken]
    del taken
    assert resident_bytes(os.getpid()) - before > 0.8 * PIECES * PIECE_BYTES
    memory.give_back()
    assert resident_bytes(os.getpid()) - before < 0.2 * PIECES * PIECE_BYTES
    assert len(kept) == PIECES


def other_heaps(maps: str) -> Iterator[int]:
    """Where each heap beside the first begins: its used part lies before a rest that is reserved."""
    lines = [line.split() for line in maps.splitlines()]
    for (used, mode, *_), (rest, rest_mode, *_) in pairwise(lines):
        start, end = int(used.split("-")[0], 16), int(rest.split("-")[1], 16)
        if end - start == HEAP_BYTES and start % HEAP_BYTES == 0 and (mode, rest_mode) == ("rw-p", "---p"):
            yield start
