"""Memory that one step of training frees is there for the next."""

import subprocess
import sys
from textwrap import dedent

import pytest

_PAGES = """
    import resource, torch
    from shared.memory import keep_freed

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(10):
            torch.zeros(6_000_000)  # 24 MB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    torch.zeros(6_000_000)
    anew = faults()
    keep_freed()
    torch.zeros(6_000_000)
    print(anew, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what malloc does is glibc's affair")
def test_freed_memory_is_used_again_instead_of_given_back() -> None:
    printed = subprocess.run(
        [sys.executable, "-c", dedent(_PAGES)], capture_output=True, text=True, check=True
    ).stdout
    anew, kept = map(int, printed.split())
    assert kept < anew / 10
