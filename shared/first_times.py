"""What must not be done by two threads at once the first time, and may be from then on."""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from threading import Lock


class FirstTimes:
    """Has each kind of computation done alone the first time. Thread-safe.

    oneDNN, which computes PyTorch's convolutions on CPUs, makes code for each shape when it first meets it,
    and keeps it. Where two threads made code for one shape at once, some of them laid out the weights for the
    code of the other: its answer was wrong, once, without an error (3.12).
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: set[Hashable] = set()

    @contextmanager
    def alone(self, kind: Hashable) -> Iterator[None]:
        """Within the block, no other thread does for the first time what it has not done before, if this
        kind of computation is new."""
        if kind in self._known:
            yield
            return
        with self._lock:
            yield
            self._known.add(kind)
