"""Memory that the process gives back: images of every size come and go on many threads.

glibc keeps what was freed for the thread that freed it, and only the end of it is ever given back. One heap
for all threads, whose free pages are given back now and then, keeps a server as small as what it has in hand.
In between it keeps what it frees: the next request needs it again, and a fault a page to have it back took a
tenth of a large model's time. Elsewhere than on glibc nothing is done.
"""

import asyncio
import ctypes

# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = -1
_LARGEST_KEPT = 1 << 25  # bytes: the most that glibc took until 2.35

_PAUSE_SECONDS = 5.0


def share_heap() -> None:
    """Let all threads that are started from now on share one heap, which shrinks by `give_back` alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT):
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_ARENA_MAX, 1)


def give_back() -> None:
    """Give the free pages of the heap back to the system; well under a millisecond where few are free."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


async def keep_small() -> None:
    """Give back what is free, as after a start, and again every few seconds, until cancelled."""
    while True:
        await asyncio.to_thread(give_back)
        await asyncio.sleep(_PAUSE_SECONDS)
