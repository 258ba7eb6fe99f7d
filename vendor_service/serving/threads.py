"""The waiting of threads that share a computation, beside processes that have work of their own."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Made = TypeVar("_Made")

_WAITED = "20000"  # turns of a loop, about a millisecond


def share_processors() -> None:
    """Let a thread that waits for the others of its team soon leave its processor to who decodes.

    GNU's OpenMP, which PyTorch's wheels for Linux bring, otherwise has it turn for many milliseconds. It asks
    the environment when it is loaded, so this is to be called before torch is imported. What an operator has
    set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _WAITED)


def make_apart(make: Callable[[], _Made]) -> _Made:
    """What is made on a thread that ends with it, and so does the team of threads that computed for it.

    GNU's OpenMP keeps a team for every thread that has had one, and has none of them wait awake while all
    teams together have more threads than there are processors. A small operator then takes twice as long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="maker") as apart:
        return apart.submit(make).result()
