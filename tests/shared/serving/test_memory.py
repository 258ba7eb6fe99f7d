"""A server keeps what it frees for the next request, until it gives back what is free."""

import asyncio
import subprocess
import sys
import threading
from textwrap import dedent

import pytest

from shared.serving import memory

_PAGES = """
    import resource, torch
    from shared.serving.memory import give_back, share_heap

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")
def test_what_a_request_frees_is_there_for_the_next_until_it_is_given_back() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES)], capture_output=True, text=True, check=True
    ).stdout
    first, again, given_back = map(int, printed.split())
    assert first > 5000
    assert again < first / 10
    assert given_back > first / 2


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
