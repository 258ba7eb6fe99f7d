"""A lock on computations for which a library compiles a kernel the first time."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock


class KernelCompileLock:
    """Lets only one thread at a time do a computation of a new kind. Thread-safe.

    oneDNN, which computes PyTorch's convolutions on CPUs, compiles a kernel for each shape when it first
    meets it, and keeps it. Where two threads compiled for one shape at once, some laid out the weights for
    the kernel of the other: its answer was wrong, once, without an error (oneDNN 3.12).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: set[Hashable] = set()

    @contextmanager
    def alone(self, kind: Hashable) -> Iterator[None]:
        """Hold the lock for the block, if this kind of computation is new."""
        if kind in self._known:
            yield
            return
        with self._lock:
            yield
            self._known.add(kind)
