"""The end of whoever has processes forked: starts the server of forks, talks to it, and starts it anew."""

import asyncio
import json
import logging
import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from shared.processes.forked import Task, TaskSpec
from shared.processes.worker import Arena, ArenaLayout, Worker

_START_SECONDS = 120.0
_STOP_SECONDS = 5.0

# Variables by which a process finds its files, and speaks the language of the machine.
_TO_RUN_BY = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TZDIR", "TMPDIR", "TMP", "TEMP"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "GLIBC_TUNABLES", "XDG_CACHE_HOME"),
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"),
        "TORCH_HOME",
    }
)
# What the names of others begin with: those of the interpreter and of libraries that compute.
_LIBRARIES = ("PYTHON", "COVERAGE_", "LC_", "MALLOC_", "OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Death:
    """A process has ended. `status` is negative for a signal, and `None` where nobody knows."""

    number: int
    status: int | None


class CannotStart(Exception):
    """The processes do not start; the message says why."""


class Launched(Protocol):
    """The process of the server; what `subprocess.Popen` has, as far as it is needed."""

    pid: int

    def kill(self) -> None:
        """End it at once."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end.

        Raises:
            subprocess.TimeoutExpired: it goes on.
        """


class ForkServer:
    """Has processes forked, each for a task. Not thread-safe.

    Args:
        tasks: each task with its arena and its niceness, by name.
    """

    def __init__(self, tasks: Mapping[str, tuple[Task, ArenaLayout, int]]) -> None:
        self._layouts = {kind: layout for kind, (_, layout, _) in tasks.items()}
        specs = pickle.dumps(
            {
                kind: TaskSpec(pickle.dumps(task), layout, niceness)
                for kind, (task, layout, niceness) in tasks.items()
            }
        )
        self._specs = len(specs).to_bytes(8, "big") + specs
        self._process: Launched | None = None
        self._control: socket.socket | None = None
        self._unread = b""
        self._workers: dict[int, Worker] = {}
        self._forked = 0
        self._told = False  # what it is to do, so that it takes messages

    @property
    def control(self) -> socket.socket:
        """Where it tells what happened: readable when there is something to `poll`."""
        assert self._control is not None
        return self._control

    @property
    def alive(self) -> bool:
        """Whether it runs and takes messages, as far as is known."""
        return self._told

    def start(self) -> None:
        """Start it. What it is told next waits until it has imported what it needs.

        Raises:
            OSError: the system has no room for it now.
        """
        self._launch()
        with suppress(OSError):  # it is gone already, which is seen next
            self.control.sendall(self._specs)
        self._told = True

    async def start_anew(self) -> None:
        """Start another one, while the event loop goes on: what it is to do is more than a socket holds.

        Raises:
            OSError: the system has no room for it now.
        """
        self._launch()
        self.control.setblocking(False)
        with suppress(OSError):
            await asyncio.get_running_loop().sock_sendall(self.control, self._specs)
        self._told = True

    def fork(self, kind: str) -> Worker:
        """Have a process forked; it answers on its socket as soon as it runs.

        Raises:
            OSError: the system has no room for it now, or the server reads too slowly.
        """
        self._forked += 1
        layout = self._layouts[kind]
        with _socket_pair() as (ours, theirs):
            memory = Arena.make(layout)
            try:
                arena = Arena(memory, layout)
                message = json.dumps({"fork": self._forked, "kind": kind}).encode() + b"\n"
                try:
                    socket.send_fds(self.control, [message], [theirs.fileno(), memory])
                except BlockingIOError:  # it has not read yet what it is to do
                    raise
                except OSError:  # it is gone, which is seen next
                    pass
            finally:
                os.close(memory)
        worker = self._workers[self._forked] = Worker(self._forked, ours, arena)
        return worker

    def kill(self, worker: Worker) -> None:
        """Have a process killed; its death is reported as any other."""
        with suppress(OSError):
            self.control.sendall(json.dumps({"kill": worker.number}).encode() + b"\n")

    def poll(self) -> list[Death]:
        """Read its reports; the deaths among them. If the server itself died, so have all processes."""
        try:
            received = self.control.recv(1 << 16)
        except BlockingIOError:
            return []
        except TimeoutError:  # which is an OSError too
            raise
        except OSError:
            received = b""
        if not received:
            return [Death(number, None) for number in self._forget()]
        *lines, self._unread = (self._unread + received).split(b"\n")
        deaths = []
        for told in map(json.loads, lines):
            if "started" in told:
                self._workers[told["started"]].pid = told["pid"]
            elif self._workers.pop(told["died"], None) is not None:
                deaths.append(Death(told["died"], told["status"]))
        return deaths

    def wait_for(self, worker: Worker) -> None:
        """Return when a process runs.

        Raises:
            CannotStart: it never does.
        """
        self.control.settimeout(_START_SECONDS)
        try:
            while worker.pid is None:
                if self.poll() or not self.alive:
                    raise CannotStart("the processes that check inputs do not start; the log says why")
        except TimeoutError as error:
            message = f"the processes that check inputs do not start within {_START_SECONDS:.0f} s"
            raise CannotStart(message) from error
        finally:
            self.control.setblocking(False)
        worker.socket.setblocking(False)

    def close(self) -> None:
        """End it, and with it all processes."""
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:  # it is importing something
                self._process.kill()
                self._process.wait()
        self._process = self._control = None
        self._told = False
        self._workers.clear()

    def _launch(self) -> None:
        if self._control is not None:
            self._control.close()
        with _socket_pair() as (ours, theirs):
            self._process = launch(theirs)
        self._control, self._unread = ours, b""

    def _forget(self) -> list[int]:
        assert self._process is not None
        _log.error("the server of the processes that check inputs died; starting another")
        self._process.kill()
        self._process.wait()
        self._process, self._told = None, False
        numbers = list(self._workers)
        self._workers.clear()
        return numbers


@contextmanager
def _socket_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Our end of a line and the other one, which is closed here, as ours is where that fails."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            yield ours, theirs
        except BaseException:
            ours.close()
            raise


def launch(control: socket.socket) -> Launched:
    """Start the server in a process of its own, with its end of the socket between us."""
    # It is given the paths of this process, as it is to import the same code from wherever it runs.
    code = f"import sys; sys.path[:] = {sys.path!r}; "
    code += f"from shared.processes.forked import main; main({control.fileno()})"
    return subprocess.Popen(  # noqa: S603 - this interpreter, and code from above
        [sys.executable, "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[control.fileno()],
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    """The variables that the processes need to run. Any other may be a password."""
    own = {name: value for name, value in os.environ.items() if _is_to_run_by(name)}
    # Tokenizers come whole, so no hub is needed, and no proxy or token for it.
    own["HF_HUB_OFFLINE"] = "1"
    return own | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def _is_to_run_by(name: str) -> bool:
    return name in _TO_RUN_BY or name.startswith(_LIBRARIES)
