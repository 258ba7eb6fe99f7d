"""A process watched from outside: its resident memory and its open descriptors, over time."""

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Sample:
    """What was seen so many `seconds` after the watch began; memory in bytes."""

    seconds: float
    resident: int
    descriptors: int


class Watch:
    """Looks at a process every so many seconds while it is a context; a process that has ended is no fault.

    It reads Linux's /proc.
    """

    def __init__(self, pid: int, every: float = 1.0) -> None:
        self.samples: list[Sample] = []
        self._process = Path("/proc", str(pid))
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    @property
    def peak(self) -> int:
        """The most memory that was seen, in bytes."""
        return max(each.resident for each in self.samples)

    def _run(self) -> None:
        began = time.monotonic()
        while True:
            try:
                resident = int((self._process / "statm").read_text().split()[1]) * _PAGE
                descriptors = sum(1 for _ in (self._process / "fd").iterdir())
            except OSError:
                return
            self.samples.append(Sample(time.monotonic() - began, resident, descriptors))
            if self._over.wait(self._every):
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
