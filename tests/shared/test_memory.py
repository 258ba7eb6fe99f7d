"""Memory that one step of training frees is there for the next."""

import subprocess
import sys
from textwrap import dedent

import pytest

_PAGES = """
    SIZE, PIECES = 6_000_000, 4  # 24 MB each: a thread's heap has two to a block
    import resource, sys, torch
    from concurrent.futures import ThreadPoolExecutor
    from shared.memory import keep_freed

    def step():
        return [torch.zeros(SIZE) for _ in range(PIECES)]

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(5):
            step()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    def on_a_thread_of_its_own():
        with ThreadPoolExecutor(1) as pool:
            for _ in range(3):
                pool.submit(step).result()
            return pool.submit(faults).result()

    step()
    anew = faults()
    keep_freed(heaps=int(sys.argv[1]))
    step()
    print(anew, faults(), on_a_thread_of_its_own())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")
@pytest.mark.parametrize("heaps", [1, 3])
def test_freed_memory_is_used_again_instead_of_given_back(heaps: int) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES), str(heaps)], capture_output=True, text=True, check=True
    ).stdout
    anew, kept, kept_for_all = map(int, printed.split())
    assert kept < anew / 10
    assert kept_for_all < anew / 10
