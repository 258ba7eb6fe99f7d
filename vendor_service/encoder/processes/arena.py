"""Memory that two processes share, and that has no name: it is gone with them, however they end."""

import mmap
import os
import struct
import tempfile

_HEAD = 64  # bytes: which of its inputs the process works on, and for how long it may
_PROGRESS = struct.Struct("i")
_ALLOWED = struct.Struct("d")
_ALLOWED_AT = 8
_GIVEN_BACK = 1 << 20  # inputs beyond so many bytes do not stay in memory


class Arena:
    """What goes to one process and comes back from it.

    `output` has room for `slots` results of `slot_bytes` each, `input` for `input_bytes`.
    """

    def __init__(self, file: int, slots: int, slot_bytes: int, input_bytes: int) -> None:
        self._memory = mmap.mmap(file, _input_at(slots, slot_bytes) + input_bytes)
        self.slots = slots
        self.slot_bytes = slot_bytes
        self.input_bytes = input_bytes
        self._input_at = _input_at(slots, slot_bytes)

    @staticmethod
    def make(slots: int, slot_bytes: int, input_bytes: int) -> int:
        """A file in memory, as large as an arena needs; no page of it is taken before it is written to."""
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("tuition-arena")
        else:
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, _input_at(slots, slot_bytes) + input_bytes)
        return file

    @property
    def progress(self) -> int:
        """Which input is worked on, or was when the process died."""
        number: int = _PROGRESS.unpack_from(self._memory)[0]
        return number

    @progress.setter
    def progress(self, number: int) -> None:
        _PROGRESS.pack_into(self._memory, 0, number)

    @property
    def allowed(self) -> float:
        """How much processor time the input that is worked on may take, or was killed for taking."""
        seconds: float = _ALLOWED.unpack_from(self._memory, _ALLOWED_AT)[0]
        return seconds

    @allowed.setter
    def allowed(self, seconds: float) -> None:
        _ALLOWED.pack_into(self._memory, _ALLOWED_AT, seconds)

    def write(self, at: int, content: bytes) -> None:
        """Put an input to so many bytes from the start."""
        start = self._input_at + at
        self._memory[start : start + len(content)] = content

    def read(self, at: int, size: int) -> bytes:
        """A copy of an input."""
        start = self._input_at + at
        return self._memory[start : start + size]

    def output(self, slots: int) -> memoryview:
        """The first results; a view of what the other process may write to again."""
        return memoryview(self._memory)[_HEAD : _HEAD + slots * self.slot_bytes]

    def shrink(self, used: int) -> None:
        """Give back the memory of inputs of `used` bytes in all, if that is much."""
        if used > _GIVEN_BACK and hasattr(mmap, "MADV_REMOVE"):
            self._memory.madvise(mmap.MADV_REMOVE, self._input_at, -(-used // mmap.PAGESIZE) * mmap.PAGESIZE)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()


def _input_at(slots: int, slot_bytes: int) -> int:
    return -(-(_HEAD + slots * slot_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
