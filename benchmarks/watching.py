"""A process watched from outside: its resident memory and its open descriptors, over time."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.vendor_process import resident_bytes


@dataclass(frozen=True)
class Sample:
    """What was seen so many `seconds` after the watch began; memory in bytes."""

    seconds: float
    resident: int
    descriptors: int


class Watch:
    """Looks at a process every so many seconds while it is a context; one that has ended is not seen.

    `pid` tells which it is, of one that is started again too. It reads Linux's /proc.
    """

    def __init__(self, pid: Callable[[], int], every: float = 1.0) -> None:
        self.samples: list[Sample] = []
        self._pid = pid
        self._every = every
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        began = time.monotonic()
        while not self._over.wait(self._every):
            pid = self._pid()
            with suppress(OSError, IndexError):
                descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
                self.samples.append(Sample(time.monotonic() - began, resident_bytes(pid), descriptors))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
