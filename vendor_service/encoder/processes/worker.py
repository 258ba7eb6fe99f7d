"""One process as the pool sees it: the inputs that it works on, its answers, and the causes of its death."""

import asyncio
import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.processes.fork_server import Death, ProcessHandle
from vendor_service.encoder.processes.inputs import Chunk
from vendor_service.errors import APIError

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
    """One process, and the chunk that it works on; it is idle without one."""

    handle: ProcessHandle
    chunk: Chunk = field(default_factory=list)
    unread: bytes = b""
    answered: bool = False  # ever
    killed_for: Cause | None = None
    deadline: asyncio.TimerHandle | None = None

    @property
    def current(self) -> int:
        """Which input of its chunk it works on, by what it says."""
        said, _ = self.handle.arena.progress
        return said if said in range(len(self.chunk)) else 0  # a process may write there what it likes

    def give(self, chunk: Chunk) -> None:
        """Give it inputs to work on.

        Raises:
            OSError: it has died.
        """
        at, message = 0, []
        for item in chunk:
            content = item.content.encode() if isinstance(item.content, str) else item.content
            self.handle.arena.write(at, content)
            at += len(content)
            message.append((len(content), item.encoded, item.is_heavy))
        self.chunk = chunk
        self.handle.arena.progress = (0, 0.0)
        self.handle.socket.send(json.dumps(message).encode() + b"\n")

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
        output = self.handle.arena.output(len(self.chunk))
        return np.frombuffer(output, np.uint8).reshape(len(self.chunk), -1).copy()

    def cause_of(self, death: Death) -> Cause:
        """Why it died."""
        if self.killed_for is not None:
            return self.killed_for
        if death.status == -signal.SIGPROF:
            return TIME
        return KILLED if death.status in (None, -signal.SIGKILL) else CRASH
