"""What is freed is given back to the system, by whichever thread it was taken."""

import multiprocessing
import os
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from shared.serving import memory
from tests.support.vendor_process import VendorProcess, resident_bytes
from tests.vendor_service.api.test_fuzz import Fuzzer

PIECES = 1000
PIECE_BYTES = 100_000  # less than glibc takes from the system for one piece alone
HEAP_BYTES = 1 << 26  # what glibc reserves for a heap beside the first, at a multiple of as much

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it is about glibc")


def test_the_vendors_threads_share_one_heap(vendor_process: VendorProcess) -> None:
    Fuzzer(vendor_process).throw(range(8))
    assert not list(other_heaps(Path(f"/proc/{vendor_process.pid}/maps").read_text()))


def test_free_memory_between_what_is_kept_is_given_back() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as fresh:  # a process that has no free memory yet
        taken, left = fresh.apply(_megabytes_taken_and_left)
    assert taken > 80
    assert left < 20


def _megabytes_taken_and_left() -> tuple[float, float]:
    """After a hundred megabytes were freed that lie between small pieces; and after free memory went back."""
    before = resident_bytes(os.getpid())
    taken = [(b"x" * PIECE_BYTES, b"x" * (PIECE_BYTES // 50)) for _ in range(PIECES)]
    kept = [small for _, small in taken]
    del taken
    freed = resident_bytes(os.getpid()) - before
    memory.give_back()
    left = resident_bytes(os.getpid()) - before
    assert len(kept) == PIECES
    return freed / 1e6, left / 1e6


def other_heaps(maps: str) -> Iterator[int]:
    """Where each heap beside the first begins: its used part lies before a rest that is reserved."""
    lines = [line.split() for line in maps.splitlines()]
    for (used, mode, *_), (rest, rest_mode, *_) in pairwise(lines):
        start, end = int(used.split("-")[0], 16), int(rest.split("-")[1], 16)
        if end - start == HEAP_BYTES and start % HEAP_BYTES == 0 and (mode, rest_mode) == ("rw-p", "---p"):
            yield start
