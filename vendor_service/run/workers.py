"""Workers: several processes that serve on one address."""

import logging
import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from shared.http.handing import Acceptor
from vendor_service.run.supervisor import Supervisor
from vendor_service.run.worker_metrics import Worker

# Longer than a worker needs to finish what is in hand.
_STOP_SECONDS = 40.0

# Serves as one worker, tells when it is ready (and what it serves), and returns once stopped.
Serve = Callable[[Worker, Callable[[str], None]], None]

_log = logging.getLogger(__name__)
# Workers are forked from a process that has imported what they need, and share its memory: they start, and
# start again, without the seconds that imports take.
_forking = multiprocessing.get_context("forkserver")
_PRELOADED = ["vendor_service.run.serve"]


class Workers:
    """`count` processes that each `serve` (which must be picklable), and share a socket's connections."""

    def __init__(self, serve: Serve, count: int, listener: socket.socket) -> None:
        self._serve = serve
        self._count = count
        self._listener = listener

    def run(self, on_ready: Callable[[str], None]) -> bool:
        """Serve until SIGTERM or SIGINT; whether it was SIGINT. `on_ready` is called once all are ready.

        SIGHUP is passed on to the workers.

        Raises:
            OperatorError: a worker does not start at all.
        """
        _forking.set_forkserver_preload(_PRELOADED)
        with TemporaryDirectory(prefix="vendor-") as folder:
            workers = [Worker(number, self._count, Path(folder)) for number in range(self._count)]
            works = [partial(self._serve, worker) for worker in workers]
            acceptor = Acceptor(self._listener, workers[0].connections)
            supervisor = Supervisor(_forking, "worker", works)
            with _Signals(supervisor.hang_up) as signals:
                acceptor.start()
                try:
                    serves = supervisor.start(signals.reader)
                    if serves is not None:
                        on_ready(serves)
                    supervisor.watch(signals.reader)
                finally:
                    self._stop(supervisor, acceptor)
                return signals.received == signal.SIGINT

    def _stop(self, supervisor: Supervisor, acceptor: Acceptor) -> None:
        _log.info("stopping the workers")
        supervisor.terminate()
        acceptor.end()  # with the last of the workers, which take connections until they have nothing in hand
        supervisor.join(_STOP_SECONDS)
        acceptor.join()
        _log.info("the workers have stopped")


class _Signals:
    """Notes the signal to stop, which makes `reader` readable; `on_hangup` is called at SIGHUP."""

    def __init__(self, on_hangup: Callable[[], None]) -> None:
        self._on_hangup = on_hangup
        self.received: int | None = None
        self.reader, self._writer = os.pipe()

    def __enter__(self) -> "_Signals":
        stops = (signal.SIGINT, signal.SIGTERM)
        self._before = {each: signal.signal(each, self._note) for each in stops}
        self._before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self._on_hangup())
        return self

    def __exit__(self, *_: object) -> None:
        for each, handler in self._before.items():
            signal.signal(each, handler)
        os.close(self.reader)
        os.close(self._writer)

    def _note(self, number: int, _frame: object) -> None:
        self.received = self.received or number
        os.write(self._writer, b"\0")
