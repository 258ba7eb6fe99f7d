"""One process as its owner has it: its memory, the inputs that it works on, its answers, why it died."""

import asyncio
import json
import mmap
import os
import signal
import socket
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.errors import APIError, ErrorCode
from shared.kinds import Kind

_HEAD = struct.Struct("id")  # the number of the input that is worked on, and the seconds it may take
_HEAD_BYTES = 64
_LARGE_BYTES = 1 << 20  # inputs beyond this size do not stay in memory

# Where processor time is not counted, and for a process that was stopped.
WALL_SECONDS = 60.0

_Errors = Mapping[Kind, tuple[ErrorCode, str]]

_SLOW: _Errors = {
    "image": (
        ErrorCode.IMAGE_TOO_LARGE,
        "decoding takes more processor time than an image of that size may take",
    ),
    "text": (
        ErrorCode.INVALID_REQUEST,
        "tokenizing takes more processor time than a text may; send a shorter text",
    ),
}
_FATAL: _Errors = {
    "image": (ErrorCode.INVALID_IMAGE, "the image file ended the process that decoded it"),
    "text": (ErrorCode.INVALID_REQUEST, "the text ended the process that tokenized it"),
}

# The bytes that a process made of an input, or why there are none.
Outcome = NDArray[np.uint8] | APIError


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
    """Memory that two processes share: the inputs of one, its results, and its progress.

    It has no name, so it is gone with them, however they end.
    """

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


@dataclass(eq=False)
class InputJob:
    """One caller's inputs, and their outcomes so far. Those of the `background` wait for all others."""

    account: str
    done: "asyncio.Future[list[Outcome]]"
    outcomes: list[Outcome | None]
    background: bool = False
    left: int = field(init=False)
    seconds: list[float] = field(init=False)  # of processor time, for each input

    def __post_init__(self) -> None:
        self.left = len(self.outcomes)
        self.seconds = [0.0] * self.left


@dataclass(eq=False)
class Input:
    """One input: its bytes, or the base64 of them (`encoded`)."""

    job: InputJob
    index: int
    content: bytes | str
    encoded: bool = False
    deaths: int = 0  # of processes that worked on it
    more_bytes: int | None = None  # needed beyond a process's share; `None` while no process has looked at it

    @property
    def is_heavy(self) -> bool:
        """Whether it needs more memory or time than its share; a process found out, and handed it back."""
        return self.more_bytes is not None

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits for it any more."""
        return self.job.done.done()

    def add_seconds(self, seconds: float) -> None:
        """Count processor time that it took, in vain or not."""
        self.job.seconds[self.index] += seconds

    def finish(self, outcome: Outcome) -> None:
        """Record its outcome; the caller has all of them once the last is here."""
        job = self.job
        if job.outcomes[self.index] is None:
            job.outcomes[self.index] = outcome
            job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result([each for each in job.outcomes if each is not None])


Chunk = list[Input]  # of one account, and either all of them of the background or none


@dataclass(frozen=True)
class Cause:
    """Why a process died: the input that it worked on is refused after `deaths` of them, with this error."""

    name: str
    deaths: int
    errors: _Errors


TIME = Cause("time", 1, _SLOW)
CRASH = Cause("crash", 1, _FATAL)
KILLED = Cause("killed", 2, _FATAL)  # it may not be the input's fault


@dataclass(frozen=True)
class Result:
    """A process's word on one input: done, refused with an error, or handed back as it needs `more_bytes`."""

    seconds: float
    processor_seconds: float
    more_bytes: int | None = None
    error: APIError | None = None

    @classmethod
    def read(cls, said: Mapping[str, object]) -> "Result":
        """Read what it says.

        Raises:
            Exception: that cannot be right.
        """
        code, more_bytes, error = said.get("code"), said.get("more_bytes"), None
        if more_bytes is not None and not (isinstance(more_bytes, int) and more_bytes >= 0):
            raise ValueError("no input needs so much more")
        if code is not None:
            error = APIError(ErrorCode(str(code)), str(said["message"]))
        seconds, took = (float(str(said[name])) for name in ("seconds", "processor_seconds"))
        return cls(seconds, believed(took), more_bytes, error)


def believed(seconds: float) -> float:
    """The processor time that a process tells of, which may be any number and none."""
    return seconds if 0 <= seconds <= WALL_SECONDS else WALL_SECONDS


@dataclass(eq=False)
class Worker:
    """One process: a socket for messages, the memory that both see, and the chunk that it works on.

    It is idle without a chunk.
    """

    number: int
    socket: socket.socket
    arena: Arena
    pid: int | None = None  # once it runs
    chunk: Chunk = field(default_factory=list)
    unread: bytes = b""
    answered: bool = False  # ever
    killed_for: Cause | None = None
    deadline: asyncio.TimerHandle | None = None

    def close(self) -> None:
        """Let go of both; the process ends when it is next asked for something."""
        self.socket.close()
        self.arena.close()

    @property
    def current(self) -> int:
        """Which input of its chunk it works on, by what it says."""
        said, _ = self.arena.progress
        return said if said in range(len(self.chunk)) else 0  # a process may write there what it likes

    def give(self, chunk: Chunk) -> None:
        """Give it inputs to work on.

        Raises:
            OSError: it has died.
        """
        at, message = 0, []
        for item in chunk:
            content = item.content.encode() if isinstance(item.content, str) else item.content
            self.arena.write(at, content)
            at += len(content)
            message.append((len(content), item.encoded, item.is_heavy))
        self.chunk = chunk
        self.arena.progress = (0, 0.0)
        self.socket.send(json.dumps(message).encode() + b"\n")

    def read(self, line: bytes) -> list[Result] | None:
        """Read its answer: results of its inputs, in their order; `None` if that cannot be right.

        A flaw of a decoder may have made the process somebody else's.
        """
        try:
            results = [Result.read(each) for each in json.loads(line)]
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return results if 0 < len(results) <= len(self.chunk) else None

    def rows(self) -> NDArray[np.uint8]:
        """A copy of the bytes that it made of its inputs, one row for each."""
        output = self.arena.output(len(self.chunk))
        return np.frombuffer(output, np.uint8).reshape(len(self.chunk), -1).copy()

    def cause_of_death(self, status: int | None) -> Cause:
        """Why it died: `status` is negative for a signal, and `None` where nobody knows."""
        if self.killed_for is not None:
            return self.killed_for
        if status == -signal.SIGPROF:
            return TIME
        return KILLED if status in (None, -signal.SIGKILL) else CRASH
