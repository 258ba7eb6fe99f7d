"""A process watched from outside: its resident memory and its open descriptors, over time."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks.background import Background
from tests.support.vendor_process import resident_bytes


@dataclass(frozen=True)
class Sample:
    """What was seen so many `seconds` after the watch began; memory in bytes."""

    seconds: float
    resident: int
    descriptors: int


class Watch(Background):
    """Looks at a process every so many seconds while it is a context; one that has ended is not seen.

    `pid` tells which it is, of one that is started again too, and `resident` what it has in memory. It reads
    Linux's /proc.
    """

    def __init__(
        self,
        pid: Callable[[], int],
        every: float = 1.0,
        resident: Callable[[int], int] = resident_bytes,
    ) -> None:
        super().__init__(every)
        self.samples: list[Sample] = []
        self._pid = pid
        self._resident = resident
        self._began = 0.0

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return super().__enter__()

    def tick(self) -> None:
        """Take a sample."""
        pid = self._pid()
        with suppress(OSError, IndexError):
            descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            self.samples.append(Sample(time.monotonic() - self._began, self._resident(pid), descriptors))


def session_bytes(pid: int) -> int:
    """What all processes of the session that this one leads have in memory, what they share counted once."""
    return sum(_proportional_bytes(each) for each in _of_session(pid))


def _of_session(leader: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            # After the name, which may hold anything: state, parent, group, session.
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                yield int(folder.name)


def _proportional_bytes(pid: int) -> int:
    with suppress(OSError, IndexError):
        return 1024 * int(Path(f"/proc/{pid}/smaps_rollup").read_text().partition("\nPss:")[2].split()[0])
    return 0  # it has ended meanwhile
