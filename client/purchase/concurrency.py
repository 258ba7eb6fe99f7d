"""The number of requests in flight: more while that buys faster, fewer when the vendor pushes back."""

import threading
import time
from collections.abc import Callable

START = 4
LARGEST = 16
# One more request in flight has to make buying this much faster, or it is not worth the vendor's trouble.
_WORTHWHILE = 1.05
# Windows (of twice as many answers as requests in flight) before more is tried again.
_PATIENCE = 8
# Requests in flight are refused together; that is one sign, not several.
_ONE_SIGN_SECONDS = 1.0


class ConcurrencyLimiter:
    """The number of requests in flight, shared by the threads that send them.

    It is half as many again for a while; if more queries a second were answered, so it stays, and otherwise
    it returns to what it was. When the vendor says 429 or 503 it is halved.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = START
        self._clock = clock
        self._changed = threading.Condition()
        self._stopped = False
        self._active = 0
        self._proven: tuple[int, float] | None = None
        self._patience = 0
        self._pushed_back_at = -_ONE_SIGN_SECONDS
        self._begin_window()

    def acquire(self) -> bool:
        """Wait for leave to send a request; False once there is nothing to wait for any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._active < self.limit)
            self._active += not self._stopped
            return not self._stopped

    def release(self, queries: int) -> None:
        """Count a request that has ended, and its answered queries."""
        with self._changed:
            self._active -= 1
            self._answers += 1
            self._queries += queries
            if self._answers >= 2 * self.limit:
                self._adjust(self._queries / max(self._clock() - self._began, 1e-9))
                self._begin_window()
            self._changed.notify_all()

    def push_back(self) -> None:
        """The vendor has too much to do, or has set a rate."""
        with self._changed:
            if self._clock() - self._pushed_back_at < _ONE_SIGN_SECONDS:
                return
            self._pushed_back_at = self._clock()
            self.limit = max(1, self.limit // 2)
            self._proven = None
            self._patience = _PATIENCE
            self._begin_window()

    def stop(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _begin_window(self) -> None:
        self._began = self._clock()
        self._answers = 0
        self._queries = 0

    def _adjust(self, rate: float) -> None:
        """Judge a window in which `rate` queries a second were answered."""
        if self._proven is not None and self.limit > self._proven[0]:
            limit, proven = self._proven
            if rate < proven * _WORTHWHILE:
                self.limit = limit
                self._patience = _PATIENCE
                return
        self._proven = (self.limit, rate)
        if self._patience:
            self._patience -= 1
        else:
            self.limit = min(LARGEST, self.limit + max(1, self.limit // 2))
