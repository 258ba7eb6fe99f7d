"""Supervision of processes: started together, started again when they die, and stopped together."""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from shared.process_names import name_process
from vendor_service.errors import OperatorError

# Does the work of one process until it is told to stop. It calls its argument once, when it is ready.
Work = Callable[[Callable[[str], None]], None]

# Before another start of a process that died before it was ready, or that the system had no room for.
_PAUSE_SECONDS = 2.0

_log = logging.getLogger(__name__)


@dataclass
class _Child:
    """A process, and the lifeline by which each end learns that the other one is gone."""

    process: BaseProcess
    lifeline: Connection
    ready: bool = False
    hung_up: bool = False  # SIGHUP waits until it is ready


class Supervisor:
    """Keeps a process alive for each of the `works`, which must be picklable.

    The processes end when this one does. Methods that take an `interrupt` return early once it is readable.

    Args:
        context: how processes are made.
        kind: their name in the log, as in "worker".
        works: the work of each.
        told_seconds: how long to wait before another start of a process that ended in good order: a signal
            that it got may have been meant for this process as well.
    """

    def __init__(
        self,
        context: ForkServerContext | SpawnContext,
        kind: str,
        works: Sequence[Work],
        *,
        told_seconds: float = 0.0,
    ) -> None:
        self._context = context
        self._kind = kind
        self._works = works
        self._told_seconds = told_seconds
        self._children: dict[int, _Child] = {}

    def start(self, interrupt: int | Connection) -> str | None:
        """Start all processes; what the last of them said when it was ready, `None` if interrupted.

        Raises:
            OperatorError: one of them refuses, or ends.
        """
        for number in range(len(self._works)):
            self._start(number)
        said = None
        while not all(each.ready for each in self._children.values()):
            for number, said in self._reports(interrupt):
                if isinstance(said, OperatorError):
                    raise said
                if said is None:
                    raise OperatorError(f"the {self._kind} ended before it was ready; the log says why")
                self._mark_ready(number)
            if wait([interrupt], 0):
                return None
        return said if isinstance(said, str) else None

    def watch(self, interrupt: int | Connection) -> None:
        """Start another process for each one that dies, until interrupted."""
        while not wait([interrupt], 0):
            for number, said in self._reports(interrupt):
                if said is None:
                    self._replace(number, interrupt)
                elif isinstance(said, OperatorError):
                    _log.error("the %s does not start: %s", self._kind, said)
                else:
                    self._mark_ready(number)

    def hang_up(self) -> None:
        """Send SIGHUP to each process, as soon as it is ready."""
        for child in list(self._children.values()):
            if child.ready:
                _send(child, signal.SIGHUP)
            else:
                child.hung_up = True

    def terminate(self) -> None:
        """Tell all processes to stop."""
        for child in self._children.values():
            _send(child, signal.SIGTERM)

    def join(self, seconds: float) -> None:
        """Wait for the end of all processes, and kill those that have not ended in time."""
        deadline = time.monotonic() + seconds
        for child in self._children.values():
            if not _has_ended(child, max(0.0, deadline - time.monotonic())):
                _send(child, signal.SIGKILL)
                _has_ended(child, None)
            child.process.join()
            child.lifeline.close()

    def _start(self, number: int) -> None:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_run, args=(self._works[number], theirs), name=f"{self._kind} {number}", daemon=True
        )
        with theirs:
            process.start()
        self._children[number] = _Child(process, ours)
        _log.info("%s started", self._kind, extra={"fields": {"number": number, "pid": process.pid}})

    def _reports(self, interrupt: int | Connection) -> Iterator[tuple[int, str | OperatorError | None]]:
        """Wait for reports, each with the number of its process; `None` says that the process has died.

        Its end of the lifeline has closed then. The sentinel of a forked process would also tell of the end
        of the server that forked it.
        """
        numbers = {each.lifeline: number for number, each in self._children.items()}
        for happened in wait([interrupt, *numbers]):
            if isinstance(happened, Connection) and happened in numbers:
                try:
                    said = happened.recv()
                except (EOFError, OSError):
                    said = None
                yield numbers[happened], said

    def _mark_ready(self, number: int) -> None:
        child = self._children[number]
        child.ready = True
        if child.hung_up:
            _send(child, signal.SIGHUP)

    def _replace(self, number: int, interrupt: int | Connection) -> None:
        dead = self._children.pop(number)
        dead.lifeline.close()
        dead.process.join()
        exit_code = dead.process.exitcode
        fields = {"number": number, "pid": dead.process.pid, "exit_code": exit_code}
        _log.error("the %s died; starting another", self._kind, extra={"fields": fields})
        pause = _PAUSE_SECONDS if not dead.ready else self._told_seconds if exit_code == 0 else 0.0
        while not wait([interrupt], pause):
            try:
                self._start(number)
            except (EOFError, OSError) as error:
                _log.error("the %s cannot be started, which is tried again: %r", self._kind, error)
                pause = _PAUSE_SECONDS
            else:
                return


def _send(child: _Child, number: signal.Signals) -> None:
    """Send a process a signal, also where the server that forked it is gone."""
    assert child.process.pid is not None  # it was started; 0 would be everybody
    with suppress(ProcessLookupError):
        os.kill(child.process.pid, number)


def _has_ended(child: _Child, seconds: float | None) -> bool:
    """Whether a process ends in time; its reports no longer matter."""
    try:
        while child.lifeline.poll(seconds):
            child.lifeline.recv()
    except (EOFError, OSError):
        return True
    return False


def _run(work: Work, lifeline: Connection) -> None:
    """Run in a process of its own."""
    name_process(f"vendor {multiprocessing.current_process().name}")
    threading.Thread(target=_end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
    try:
        work(lifeline.send)
    except OperatorError as error:
        with suppress(OSError):
            lifeline.send(error)
        raise SystemExit(1) from error


def _end_with_parent(lifeline: Connection) -> None:
    """Send this process SIGTERM once the supervisor is gone."""
    with suppress(EOFError, OSError):
        lifeline.recv()  # nothing is ever sent this way
    os.kill(os.getpid(), signal.SIGTERM)
