"""Memory that two processes share. It has no name, so it is gone with them, however they end."""

import mmap
import os
import struct
import tempfile
from dataclasses import dataclass

_HEAD = struct.Struct("id")  # the number of the input that is worked on, and the seconds it may take
_HEAD_BYTES = 64
_LARGE_BYTES = 1 << 20  # inputs beyond this size do not stay in memory


@dataclass(frozen=True)
class ArenaLayout:
    """Room for `slots` results of `slot_bytes` each, and for inputs of `input_bytes` in all."""

    slots: int
    slot_bytes: int
    input_bytes: int

    @property
    def input_at(self) -> int:
        """The first byte of the inputs, on a page of its own."""
        return -(-(_HEAD_BYTES + self.slots * self.slot_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE


class Arena:
    """The inputs of one process, its results, and its progress."""

    def __init__(self, file: int, layout: ArenaLayout) -> None:
        self.layout = layout
        self._memory = mmap.mmap(file, layout.input_at + layout.input_bytes)

    @staticmethod
    def make(layout: ArenaLayout) -> int:
        """Make a file in memory with that room; no page of it is taken before it is written to."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("tuition-arena")
        else:
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, layout.input_at + layout.input_bytes)
        return file

    @property
    def progress(self) -> tuple[int, float]:
        """The input that is worked on, or was when the process died, and the processor time it may take."""
        number, seconds = _HEAD.unpack_from(self._memory)
        return number, seconds

    @progress.setter
    def progress(self, progress: tuple[int, float]) -> None:
        _HEAD.pack_into(self._memory, 0, *progress)

    def write(self, at: int, content: bytes) -> None:
        """Put an input at that byte of all inputs."""
        start = self.layout.input_at + at
        self._memory[start : start + len(content)] = content

    def read(self, at: int, size: int) -> bytes:
        """Copy an input."""
        start = self.layout.input_at + at
        return self._memory[start : start + size]

    def output(self, slots: int) -> memoryview:
        """The first results, where the other process may write again."""
        return memoryview(self._memory)[_HEAD_BYTES : _HEAD_BYTES + slots * self.layout.slot_bytes]

    def shrink(self, used: int) -> None:
        """Give back the memory of inputs that took `used` bytes in all, if that is much."""
        if used > _LARGE_BYTES and hasattr(mmap, "MADV_REMOVE"):
            pages = -(-used // mmap.PAGESIZE) * mmap.PAGESIZE
            self._memory.madvise(mmap.MADV_REMOVE, self.layout.input_at, pages)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
