"""A process keeps what it frees for the next request or step, until it gives back what is free."""

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from textwrap import dedent

import pytest

from shared import memory
from tests.support.vendor_process import resident_bytes

glibc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")

PIECES = 1000
PIECE_BYTES = 100_000  # less than glibc takes from the system for one piece alone

# How large the pieces of each are, of 40 MB and more in all, and what keeps them.
_KEEP = {"what a request frees": (20, 500_000, "share_heap"), "a step": (2, 50_000_000, "keep_freed")}
_PAGES = """
    import os, resource, torch
    from shared import memory
    from shared.memory import give_back

    def faults(pieces, numbers):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.zeros(numbers) for _ in range(pieces)]
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    for pieces, numbers, keep in KEEP:
        if os.fork() == 0:  # so that PyTorch is imported once
            getattr(memory, keep)()
            first = faults(pieces, numbers)
            again = min(faults(pieces, numbers) for _ in range(3))  # pieces may fit less well the first time
            give_back()
            print(first, again, faults(pieces, numbers), flush=True)
            os._exit(0)
        assert os.wait()[1] == 0
"""


@glibc
def test_what_a_request_or_a_step_frees_is_there_for_the_next_until_it_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES).replace("KEEP", repr([*_KEEP.values()]))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for what, line in zip(_KEEP, done.stdout.splitlines(), strict=True):
        first, again, given_back = map(int, line.split())
        assert first > 5000, what
        assert again < first / 10, what
        assert given_back > first / 2, what


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


_COLLECTIONS = """
    import gc
    from shared.memory import collect_all, collect_young, keep_all

    kept, looked = [], []
    gc.callbacks.append(lambda phase, info: looked.append((phase, info["generation"])))

    def old_collections():
        looked.clear()
        kept.extend([] for _ in range(400_000))
        return looked.count(("start", 2))

    for change in (collect_young, collect_all, keep_all):
        change()
        print(old_collections(), gc.get_freeze_count() > 400_000)
"""


def test_what_is_imported_is_gone_through_by_the_collector_once_the_program_has_begun() -> None:
    done = subprocess.run(
        [sys.executable, "-c", dedent(_COLLECTIONS)], capture_output=True, text=True, check=True
    )
    young, everything, kept = (line.split() for line in done.stdout.splitlines())
    assert young == ["0", "False"]
    assert (int(everything[0]) > 0, everything[1]) == (True, "False")
    assert (int(kept[0]) > 0, kept[1]) == (True, "True")
