"""Freed memory, which a process keeps for what comes next, and gives back now and then.

A page that the system takes back costs a fault when it is needed again. A step of training needs the same
activations as the step before, so a process that trains keeps all that it frees: without that, the features
of the align stage took three times as long. In a server, images of every size come and go on many threads,
and glibc would keep what each of them freed. One heap for all threads, whose free pages are given back every
few seconds, keeps it as small as what it has in hand. Elsewhere than on glibc nothing is done.

What is imported stays. Python's collector goes through all of it whenever there is a quarter more, which is a
fifth of the time that PyTorch takes to import.
"""

import ctypes
import gc

# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = -1
_LARGE = 1 << 25  # bytes: the most that glibc took until 2.35
_LARGEST = 1 << 30  # bytes

_PAUSE_SECONDS = 5.0
_USUAL = gc.get_threshold()


def collect_young() -> None:
    """Have Python's collector look at what is young alone, as long as a program imports."""
    gc.set_threshold(*_USUAL[:2], 1000)


def collect_all() -> None:
    """Have it look at everything again, as it does by itself."""
    gc.set_threshold(*_USUAL)


def keep_all() -> None:
    """Take what there is now for what stays, where no collector looks, and collect the rest from now on."""
    gc.collect()
    gc.freeze()
    collect_all()


def keep_freed() -> None:
    """Keep whatever this process frees from now on, pieces of up to 1 GiB (with glibc before 2.35, 32 MiB).

    It stays as large as it was at its largest.
    """
    _share_heap(_LARGEST) or _share_heap(_LARGE)


def share_heap() -> None:
    """Let all threads that are started from now on share one heap, which shrinks by `give_back` alone."""
    _share_heap(_LARGE)


def _share_heap(most: int) -> bool:
    """Whether all threads share one heap now, which keeps pieces of up to `most` bytes."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not mallopt(_MMAP_THRESHOLD, most):
        return False
    mallopt(_TRIM_THRESHOLD, _NEVER)
    mallopt(_ARENA_MAX, 1)
    return True


def give_back() -> None:
    """Give the free pages of the heap back to the system; well under a millisecond where few are free."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))


async def keep_small() -> None:
    """Give back what is free, as after a start, and again every few seconds, until cancelled."""
    import asyncio  # a command that serves nothing need not wait for it

    while True:
        await asyncio.to_thread(give_back)
        await asyncio.sleep(_PAUSE_SECONDS)
