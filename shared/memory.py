"""Memory that a process keeps when it frees it, because the next step or request needs it again."""

import ctypes

# M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
_NEVER = -1
_LARGE = 1 << 30  # bytes
LARGE_EVERYWHERE = 1 << 25  # the most that glibc took until 2.35
# A thread's own heap comes in blocks of so many bytes, and has nothing larger (HEAP_MAX_SIZE of glibc).
_HEAP_BLOCK = 1 << 26


def keep_freed(most: int = _LARGE, *, heaps: int = 1) -> None:
    """Let the process keep what it frees, from now on: to get each activation anew costs a fault a page.

    It keeps pieces of up to `most` bytes, and stays as large as it was at its largest until its heap is
    trimmed. Elsewhere than on glibc nothing is done.

    Args:
        most: bytes of the largest piece.
        heaps: how many there are for the threads that are started from now on. Threads that share one wait
            for each other, and are given memory that another processor has in its cache. But only the first
            heap keeps what is larger than 64 MiB.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in (most, LARGE_EVERYWHERE)):
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_ARENA_MAX, heaps)
        if heaps > 1:
            mallopt(_TOP_PAD, _HEAP_BLOCK)  # a block is given back where another has so much to spare
