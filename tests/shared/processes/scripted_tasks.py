"""A task for tests of the processes: each input says what is to be done with it."""

import os
import time
from contextlib import suppress

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.processes.forked import Allow, NeedsMore
from vendor_service.errors import APIError


class ScriptedTask:
    """Echoes inputs, except for those that begin with a word that it knows."""

    seconds = 0.3
    memory_bytes = 64 << 20

    def do(
        self,
        content: bytes,
        output: memoryview,
        allow: Allow,
        *,
        encoded: bool,
        free: bool,
    ) -> None:
        word, _, rest = content.partition(b":")
        if word == b"spin":
            while True:
                pass
        if word == b"allowed":
            allow(float(rest))
            ends = time.process_time() + 0.5
            while time.process_time() < ends:
                pass
        if word == b"lie":
            for file in range(3, 64):  # whatever it has: its line to the vendor, and the shared memory
                with suppress(OSError):
                    os.write(file, rest + b"\n")
            time.sleep(50)
        if word == b"sleep":
            time.sleep(float(rest))
        if word == b"crash":
            os.abort()
        if word == b"eat":
            try:
                bytearray(int(rest))
            except MemoryError as error:
                raise APIError(ErrorCode.IMAGE_TOO_LARGE, "too much memory") from error
        if word in (b"large", b"long"):
            seconds, _, more = rest.partition(b"+")
            if not free:
                raise NeedsMore("large" if word == b"large" else "long", int(more or 0))
            time.sleep(float(seconds))
        output[:] = content.ljust(len(output), b"\0")


class HeavyTask(ScriptedTask):
    """One that is told of in more bytes than a socket holds."""

    def __init__(self) -> None:
        self.ballast = bytes(4 << 20)


class Notes:
    """An observer that notes what became of processes and inputs."""

    def __init__(self) -> None:
        self.restarts: list[tuple[Kind, str]] = []
        self.seconds: list[float] = []

    def decoded(self, kind: Kind, seconds: float) -> None:
        self.seconds.append(seconds)

    def restarted(self, kind: Kind, reason: str) -> None:
        self.restarts.append((kind, reason))

    def waited(self, kind: Kind, seconds: float) -> None: ...

    def ran(self, kind: Kind, size: int, seconds: float) -> None: ...

    def died(self) -> None: ...

    def looked_up(self, *, hits: int, misses: int) -> None: ...
