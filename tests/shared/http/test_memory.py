"""A server keeps what it frees for the next request, until it gives back what is free."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from textwrap import dedent

import pytest

from shared.http import memory
from tests.support.vendor_process import resident_bytes

glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")

PIECES = 1000
PIECE_BYTES = 100_000  # less than glibc takes from the system for one piece alone

_PAGES = """
    import resource, torch
    from shared.http.memory import give_back, share_heap

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.zeros(500_000) for _ in range(20)]  # 40 MB in all
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    share_heap()
    first = faults()
    again = min(faults() for _ in range(3))  # pieces may fit less well the first time
    give_back()
    print(first, again, faults())
"""


@glibc
def test_what_a_request_frees_is_there_for_the_next_until_it_is_given_back() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES)], capture_output=True, text=True, check=True
    ).stdout
    first, again, given_back = map(int, printed.split())
    assert first > 5000
    assert again < first / 10
    assert given_back > first / 2


@glibc
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


def test_what_a_start_has_freed_is_given_back_at_once_and_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = threading.Semaphore(0)
    monkeypatch.setattr(memory, "give_back", given.release)

    async def keep_small_until(times: int) -> None:
        keeping = asyncio.create_task(memory.keep_small())
        for _ in range(times):
            assert await asyncio.to_thread(given.acquire, timeout=30)
        keeping.cancel()

    monkeypatch.setattr(memory, "_PAUSE_SECONDS", 3600.0)
    asyncio.run(keep_small_until(1))
    monkeypatch.setattr(memory, "_PAUSE_SECONDS", 0.01)
    asyncio.run(keep_small_until(3))
