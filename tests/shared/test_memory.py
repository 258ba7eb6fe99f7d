"""Memory that one step of training frees is there for the next."""

import subprocess
import sys
from textwrap import dedent

import pytest

_PAGES = """
    SIZE = 6_000_000  # 24 MB
    import resource, torch
    from concurrent.futures import ThreadPoolExecutor
    from shared.memory import keep_freed

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.zeros(SIZE)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def on_a_thread_of_its_own():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(torch.zeros, SIZE).result()
            return pool.submit(faults).result()

    torch.zeros(SIZE)
    anew = faults()
    keep_freed()
    torch.zeros(SIZE)
    print(anew, faults(), on_a_thread_of_its_own())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")
def test_freed_memory_is_used_again_instead_of_given_back() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES)], capture_output=True, text=True, check=True
    ).stdout
    anew, kept, kept_for_all = map(int, printed.split())
    assert kept < anew / 10
    assert kept_for_all < anew / 10
