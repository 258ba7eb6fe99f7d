"""Memory that a process keeps when it frees it, because the next step or request needs it again."""

import ctypes

# M_TRIM_THRESHOLD, M_MMAP_THRESHOLD and M_ARENA_MAX of malloc.h
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_NEVER = -1
_LARGE = 1 << 30  # bytes
LARGE_EVERYWHERE = 1 << 25  # the most that glibc took until 2.35


def keep_freed(most: int = _LARGE) -> None:
    """Let the process keep what it frees, from now on: to get each activation anew costs a fault a page.

    It keeps pieces of up to `most` bytes, and stays as large as it was at its largest until its heap is
    trimmed. That is one heap for all threads that are started from now on, because glibc gives back what it
    takes for a single thread. Elsewhere than on glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in (most, LARGE_EVERYWHERE)):
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_ARENA_MAX, 1)
