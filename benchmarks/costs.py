"""What a piece of work cost: its seconds, and the most memory that a process had for it meanwhile."""

import ctypes
import gc
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TypeVar

from benchmarks.watching import Watch
from tests.support.vendor_process import resident_bytes

Value = TypeVar("Value")
own_bytes = partial(resident_bytes, line="RssAnon")


@dataclass(frozen=True)
class Cost:
    """What a piece of work of some size cost.

    Attributes:
        what: the work.
        seconds: those of all of it, or where it is `flat` of one time.
        flat: whether one time should cost the same at any size; otherwise all of it grows with the size.
        bytes: the most memory that it took, without pages of files: all of a process that did nothing else,
            or what this one had more than before. `None` if nobody looked.
    """

    what: str
    seconds: float
    flat: bool = False
    bytes: int | None = None


def whole(what: str, work: Callable[[], Value]) -> tuple[Cost, Value]:
    """Do all of a piece of work once, in this process; what it cost, and what came of it."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work has left free would hide what this one takes
    before = own_bytes(os.getpid())
    with Watch(os.getpid, 0.05, own_bytes) as watch:
        began = time.perf_counter()
        value = work()
        seconds = time.perf_counter() - began
        after = own_bytes(os.getpid())
    most = max([after, *(each.resident for each in watch.samples)])
    return Cost(what, seconds, bytes=most - before), value


def once(what: str, work: Callable[[], object], times: int = 30) -> Cost:
    """What one time costs, by the median of so many; the first does not count."""
    work()
    return Cost(what, median(_seconds(work) for _ in range(times)), flat=True)


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began
