"""The processes that strangers' inputs are worked on in, and the one that forks them.

The server imports what tasks need once, has neither threads nor a device, and forks a process whenever it is
told to: one that was killed is replaced within milliseconds. All of them end with their owner, a vendor or a
served student, which is at the other end of their sockets, and heed neither Ctrl-C nor SIGTERM: the owner
finishes what is in hand.
"""

import ctypes
import json
import os
import pickle
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, Protocol

from shared.errors import APIError
from shared.memory import keep_all
from shared.process_names import name_process
from shared.processes.worker import Arena, ArenaLayout

# A process that has worked for so long on what it was given hands the rest back: others may be next.
_SLICE_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1
_LONGEST_MESSAGE = 1 << 16

Allow = Callable[[float], None]


class NeedsMore(Exception):
    """An input needs `more_bytes` than each process may have at any time (`large`), or more time (`long`)."""

    def __init__(self, grade: Literal["long", "large"], more_bytes: int = 0) -> None:
        super().__init__(grade)
        self.grade = grade
        self.more_bytes = more_bytes


class Task(Protocol):
    """The work on each input. It is made by the owner, and sent here by pickling."""

    @property
    def seconds(self) -> float:
        """The processor time of one input, until the task allows it another."""

    @property
    def memory_bytes(self) -> int:
        """The memory that it may take beyond what it starts with."""

    def do(self, content: bytes, output: memoryview, allow: Allow, *, encoded: bool, free: bool) -> None:
        """Work on one input, and write the result to `output`.

        `encoded` says that it is base64, `free` that it may have all memory and time of the task. `allow`
        gives it that many seconds of processor time from now on, beyond which the process is killed.

        Raises:
            APIError: it cannot be served.
            NeedsMore: it can only be done when it is `free`.
        """


@dataclass(frozen=True)
class TaskSpec:
    """The task of the processes of one kind, pickled, so that it is imported when first needed."""

    task: bytes
    layout: ArenaLayout
    niceness: int = 0


def main(control: int) -> NoReturn:
    """Fork processes for the owner at the other end of the socket `control`, until it has gone."""
    name_process("tuition inputs")
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)  # whatever was inherited
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    warnings.simplefilter("ignore")  # what decoders think of strangers' files is nobody's business
    with socket.socket(fileno=control) as owner:
        _Server(owner).serve()
    os._exit(0)


class _Server:
    """Forks, reaps and kills; it never works on an input itself."""

    def __init__(self, owner: socket.socket) -> None:
        self._owner = owner
        self._specs: dict[str, TaskSpec] = {}
        self._tasks: dict[str, Task] = {}
        self._living: dict[int, int] = {}  # the process of each number

    def serve(self) -> None:
        """Do what it is told, one message a line, until the owner is gone; then end all processes."""
        size = int.from_bytes(_exactly(self._owner, 8), "big")
        self._specs = pickle.loads(_exactly(self._owner, size))  # noqa: S301 - the owner's own words
        died, self._woken = os.pipe()
        os.set_blocking(self._woken, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._woken, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._owner, selectors.EVENT_READ)
            selector.register(died, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == died:
                        os.read(died, 4096)
                    elif not self._handle_messages():
                        self._end()
                        return
                self._reap()

    def _handle_messages(self) -> bool:
        # Reading stops after the one message that files come with, so they belong to the last one.
        try:
            messages, files, _, _ = socket.recv_fds(self._owner, _LONGEST_MESSAGE, 2)
        except ConnectionError:
            return False
        for message in messages.splitlines():
            told = json.loads(message)
            if "fork" in told:
                self._fork(told["fork"], told["kind"], *files)
            elif told["kill"] in self._living:
                os.kill(self._living[told["kill"]], signal.SIGKILL)
        return bool(messages)

    def _fork(self, number: int, kind: str, line: int, memory: int) -> None:
        spec = self._specs[kind]
        if kind not in self._tasks:
            self._tasks[kind] = pickle.loads(spec.task)  # noqa: S301 - the owner's own words
            keep_all()  # pages that the forked processes share are not to be written to
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._owner.close()
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                _end_with(server)
                name_process(f"tuition {kind}")
                os.nice(spec.niceness)
                with socket.socket(fileno=line) as owner:
                    arena = Arena(memory, spec.layout)
                    _Worker(self._tasks[kind], owner, arena).work()
            except ConnectionError:  # the owner has gone
                pass
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(line)
        os.close(memory)
        self._living[number] = pid
        self._report(started=number, pid=pid)

    def _reap(self) -> None:
        numbers = {pid: number for number, pid in self._living.items()}
        while self._living:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            del self._living[numbers[pid]]
            self._report(died=numbers[pid], status=os.waitstatus_to_exitcode(status))

    def _report(self, **facts: int) -> None:
        with suppress(OSError):  # it has gone, which is seen next
            self._owner.sendall(json.dumps(facts).encode() + b"\n")

    def _end(self) -> None:
        for pid in self._living.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self._living.values():
            os.waitpid(pid, 0)


class _Worker:
    """Works on what it is given, input by input."""

    def __init__(self, task: Task, owner: socket.socket, arena: Arena) -> None:
        self._task = task
        self._owner = owner
        self._arena = arena
        self._number = 0  # of the input that is worked on
        self._started = 0.0  # with it, by the processor time of this process

    def work(self) -> None:
        """Answer every message, until the owner is gone."""
        _limit_memory(self._task.memory_bytes)
        with self._owner.makefile("rb") as messages:
            for message in messages:
                answer = json.dumps(self._outcomes(json.loads(message))) + "\n"
                self._owner.sendall(answer.encode())

    def _outcomes(self, inputs: list[tuple[int, bool, bool]]) -> list[dict[str, str | float]]:
        """Work on the inputs until the slice of time is over, on one at least; their outcomes."""
        outcomes: list[dict[str, str | float]] = []
        began, at = time.perf_counter(), 0
        for size, encoded, free in inputs:
            started, self._started = time.perf_counter(), time.process_time()
            outcome = self._outcome(self._arena.read(at, size), len(outcomes), encoded=encoded, free=free)
            ended = time.perf_counter()
            took = time.process_time() - self._started
            outcomes.append({**outcome, "seconds": ended - started, "processor_seconds": took})
            at += size
            if ended - began > _SLICE_SECONDS:
                break
        _set_timer(0)
        return outcomes

    def _outcome(self, content: bytes, slot: int, *, encoded: bool, free: bool) -> dict[str, str | float]:
        self._number = slot
        self._allow(self._task.seconds)
        size = self._arena.layout.slot_bytes
        view = self._arena.output(slot + 1)[slot * size :]
        try:
            self._task.do(content, view, self._allow, encoded=encoded, free=free)
        except NeedsMore as needs:
            return {"more_bytes": needs.more_bytes}
        except APIError as error:
            return {"code": error.code, "message": error.message}
        return {}

    def _allow(self, seconds: float) -> None:
        self._arena.progress = (self._number, time.process_time() - self._started + seconds)
        _set_timer(seconds)


def _set_timer(seconds: float) -> None:
    """Have the system kill this process, once it has taken so much processor time from now on."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF kills whom it meets unprepared


def _limit_memory(more: int) -> None:
    """Allow this process `more` bytes than it has, where the system tells how many it has."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):
        status = Path("/proc/self/status").read_text()
        most = 1024 * int(status.partition("VmData:")[2].split()[0]) + more
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _end_with(server: int) -> None:
    """Have the system kill this process when its parent ends; elsewhere than on Linux its socket tells."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server:
            os._exit(0)


def _exactly(line: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        piece = line.recv(min(size - len(content), 1 << 20))
        if not piece:
            os._exit(0)
        content += piece
    return bytes(content)
