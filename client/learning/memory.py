"""Memory during training: the process keeps what a step frees, because the next step needs it."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
_NEVER = -1
_LARGE = (1 << 30, 1 << 25)  # bytes; glibc took no more than the second until 2.35


def keep_freed() -> None:
    """Let the process keep what it frees, from now on: to get each activation anew costs a fault a page.

    It stays as large as it was at its largest. Elsewhere than on glibc nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and any(mallopt(_MMAP_THRESHOLD, size) for size in _LARGE):
        mallopt(_TRIM_THRESHOLD, _NEVER)
