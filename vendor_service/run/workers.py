"""Several processes on one address: started together, watched, started again, and stopped together."""

import logging
import multiprocessing
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from tempfile import TemporaryDirectory

from vendor_service.errors import OperatorError
from vendor_service.run.lifeline import end_with_parent
from vendor_service.run.worker_metrics import Worker

# Longer than a worker needs to finish what is in flight.
_STOP_SECONDS = 40.0
# Between two starts of a worker that dies before it is ready.
_PAUSE_SECONDS = 2.0

# Serves as one worker on the socket, tells when it is ready (and what it serves), and returns once stopped.
Serve = Callable[[Worker, socket.socket, Callable[[str], None]], None]

_log = logging.getLogger(__name__)
# Workers are forked from a process that has imported what they need, and shares its memory with them: so they
# are started, and started again, without the seconds that the imports take.
_forking = multiprocessing.get_context("forkserver")
_PRELOADED = ["vendor_service.run.serve"]


@dataclass
class _Running:
    process: ForkServerProcess
    lifeline: Connection
    ready: bool = False
    hung_up: bool = False  # while it was not ready, which it is told of then


class Workers:
    """`count` processes that each do `serve` (which must be picklable) on one bound socket."""

    def __init__(self, serve: Serve, count: int, listener: socket.socket) -> None:
        self._serve = serve
        self._count = count
        self._listener = listener
        self._running: dict[int, _Running] = {}
        self._folder = Path()
        self._on_ready: Callable[[str], None] | None = None

    def run(self, on_ready: Callable[[str], None], *, passes_hangups: bool = False) -> bool:
        """Serve until SIGTERM or SIGINT; whether it was SIGINT. `on_ready` is told once all are ready.

        SIGHUP ends it too, unless it `passes_hangups` on to the workers.

        Raises:
            OperatorError: a worker does not start at all.
        """
        self._on_ready = on_ready
        on_hangup = self._pass_hangup if passes_hangups else None
        with TemporaryDirectory(prefix="vendor-") as folder, _Signals(on_hangup) as signals:
            self._folder = Path(folder)
            _forking.set_forkserver_preload(_PRELOADED)
            try:
                for number in range(self._count):
                    self._start(number)
                while not signals.received:
                    self._watch(signals.reader)
            finally:
                self._stop()
            return signals.received == signal.SIGINT

    def _start(self, number: int) -> None:
        worker = Worker(number, self._count, self._folder)
        ours, theirs = _forking.Pipe()
        process = _forking.Process(
            target=_work, args=(self._serve, worker, self._listener, theirs), name=f"worker-{number}"
        )
        with theirs:
            process.start()
        self._running[number] = _Running(process, ours)
        _log.info("worker started", extra={"fields": {"worker": number, "pid": process.pid}})

    def _watch(self, signalled: int) -> None:
        # Their sentinels would not do: they tell of the end of the process that forked them as well.
        lifelines = {each.lifeline: number for number, each in self._running.items()}
        for happened in wait([signalled, *lifelines]):
            if isinstance(happened, Connection) and not self._hear(lifelines[happened]):
                self._replace(lifelines[happened], signalled)

    def _hear(self, number: int) -> bool:
        """Take what a worker tells; whether it lives, for its end of the lifeline closes with it."""
        running = self._running[number]
        try:
            told = running.lifeline.recv()
        except (EOFError, OSError):
            return False
        if isinstance(told, OperatorError):
            if self._on_ready is not None:
                raise told
            _log.error("worker %d does not start: %s", number, told)
            return True
        running.ready = True
        if running.hung_up:
            _send(running, signal.SIGHUP)
        if self._on_ready is not None and all(each.ready for each in self._running.values()):
            self._on_ready(told)
            self._on_ready = None
        return True

    def _pass_hangup(self) -> None:
        for running in list(self._running.values()):
            if running.ready:
                _send(running, signal.SIGHUP)
            else:
                running.hung_up = True

    def _replace(self, number: int, signalled: int) -> None:
        dead = self._running.pop(number)
        dead.lifeline.close()
        dead.process.join()
        if self._on_ready is not None:
            raise OperatorError("a worker ended before it was ready; the log says why")
        fields = {"worker": number, "pid": dead.process.pid, "exit_code": dead.process.exitcode}
        _log.error("worker died; starting another", extra={"fields": fields})
        pause = 0.0 if dead.ready else _PAUSE_SECONDS
        while not wait([signalled], pause):
            try:
                self._start(number)
            except (EOFError, OSError) as error:  # the system has no room for it now
                _log.error("worker %d cannot be started, which is tried again: %r", number, error)
                pause = _PAUSE_SECONDS
            else:
                return

    def _stop(self) -> None:
        _log.info("stopping the workers")
        for each in self._running.values():
            _send(each, signal.SIGTERM)
        # The workers go on listening until they have nothing in hand. A copy that stayed open here would
        # after that let connections in that nobody answers.
        self._listener.close()
        deadline = time.monotonic() + _STOP_SECONDS
        for each in self._running.values():
            if not _has_ended(each, max(0.0, deadline - time.monotonic())):
                _send(each, signal.SIGKILL)
                _has_ended(each, None)
            each.process.join()
            each.lifeline.close()
        _log.info("the workers have stopped")


def _send(running: _Running, number: signal.Signals) -> None:
    """Send a worker a signal, also where the process that forked it is gone."""
    assert running.process.pid is not None  # it was started; 0 would be everybody
    with suppress(ProcessLookupError):
        os.kill(running.process.pid, number)


def _has_ended(running: _Running, seconds: float | None) -> bool:
    """Whether a worker ends within so many seconds; what it tells meanwhile is of no use any more."""
    try:
        while running.lifeline.poll(seconds):
            running.lifeline.recv()
    except (EOFError, OSError):
        return True
    return False


class _Signals:
    """Notes the signal to stop, and wakes up who waits for `reader`; `on_hangup` is called at SIGHUP."""

    def __init__(self, on_hangup: Callable[[], None] | None) -> None:
        self._on_hangup = on_hangup
        self.received: int | None = None
        self.reader, self._writer = os.pipe()

    def __enter__(self) -> "_Signals":
        stops = (signal.SIGINT, signal.SIGTERM)
        self._before = {each: signal.signal(each, self._note) for each in stops}
        if self._on_hangup is not None:
            self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self.reader)
        os.close(self._writer)

    def _hang_up(self, _number: int, _frame: object) -> None:
        if self._on_hangup is not None:
            self._on_hangup()

    def _note(self, number: int, _frame: object) -> None:
        self.received = self.received or number
        os.write(self._writer, b"\0")


def _work(serve: Serve, worker: Worker, listener: socket.socket, lifeline: Connection) -> None:
    end_with_parent(lifeline)
    try:
        serve(worker, listener, lifeline.send)
    except OperatorError as error:
        lifeline.send(error)
