"""A thread that does one thing again and again beside a block of code."""

import threading
from types import TracebackType
from typing import Self


class Background:
    """Calls `tick` every so many seconds while it is a context, the first time after one interval."""

    def __init__(self, every: float) -> None:
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def tick(self) -> None:
        """Do the thing once."""
        raise NotImplementedError

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.tick()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
