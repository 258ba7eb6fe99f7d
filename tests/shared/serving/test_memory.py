"""A server keeps what it frees for the next request, until it gives back what is free."""

import subprocess
import sys
from textwrap import dedent

import pytest

_PAGES = """
    import resource, torch
    from shared.serving.memory import give_back, share_heap

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        held = [torch.zeros(500_000) for _ in range(20)]  # 40 MB in all
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    share_heap()
    first = faults()
    again = faults()
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
