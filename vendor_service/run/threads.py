"""The team of threads that a computation leaves behind."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Made = TypeVar("_Made")


def make_apart(make: Callable[[], _Made]) -> _Made:
    """Make something on a thread that ends with it, as does the team of threads that computed for it.

    GNU's OpenMP keeps a team for every thread that has had one, and has none of them wait awake while all
    teams together have more threads than there are processors. A small operator then takes twice as long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="maker") as apart:
        return apart.submit(make).result()
