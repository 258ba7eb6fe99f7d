"""One `/metrics` for several workers: whichever is asked gathers what all of them counted."""

import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import cast

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics import parser

from shared.http.metrics import OPEN_METRICS, told

_PATIENCE_SECONDS = 2
_NOTHING = "# EOF\n"
# The library has no types for it.
_families: Callable[[str], Iterator[Metric]] = parser.text_string_to_metric_families

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Worker:
    """Which of the workers this process is: `number` of `workers`, who meet in `folder`."""

    number: int
    workers: int
    folder: Path

    @property
    def is_first(self) -> bool:
        """Whether it does what one of them does for all."""
        return self.number == 0

    @property
    def connections(self) -> Path:
        """Where connections are handed to the workers."""
        return self.folder / "connections.sock"

    def socket(self, number: int) -> str:
        """Where that worker tells its siblings what it counted."""
        return str(self.folder / f"{number}.sock")


class WorkerMetrics:
    """Tells this worker's series to its siblings, and all of theirs, labelled `worker`, to Prometheus."""

    def __init__(self, worker: Worker, registry: CollectorRegistry) -> None:
        self._worker = worker
        self._registry = registry
        self._listener: Listener | None = None
        self._closed = threading.Event()

    def start(self) -> None:
        """Answer siblings from now on."""
        path = self._worker.socket(self._worker.number)
        Path(path).unlink(missing_ok=True)  # of a predecessor that was killed
        self._listener = Listener(path, family="AF_UNIX", backlog=self._worker.workers)
        threading.Thread(target=self._answer, args=(self._listener,), name="metrics", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._closed.set()
        if self._listener is not None:
            self._listener.close()

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """As `RequestMetrics.render`; a sibling that does not answer soon is left out."""
        return told(cast(CollectorRegistry, self), accept)

    def collect(self) -> Iterator[Metric]:
        """Every family of series, over all workers."""
        families: dict[str, Metric] = {}
        for number in range(self._worker.workers):
            for family in _families(self._told_by(number)):
                merged = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, "worker": str(number)}
                    merged.add_sample(sample.name, labels, sample.value, exemplar=sample.exemplar)
        yield from families.values()

    def _told_by(self, number: int) -> str:
        if number == self._worker.number:
            return told(self._registry, OPEN_METRICS)[0].decode()
        try:
            with _connect(self._worker.socket(number)) as sibling:
                return sibling.recv_bytes().decode() if sibling.poll(_PATIENCE_SECONDS) else _NOTHING
        except (OSError, EOFError) as error:
            _log.warning("worker %d does not tell its metrics: %r", number, error)
            return _NOTHING

    def _answer(self, listener: Listener) -> None:
        while not self._closed.is_set():
            try:
                with listener.accept() as sibling:
                    sibling.send_bytes(told(self._registry, OPEN_METRICS)[0])
            except OSError:  # a sibling that hung up, or the end
                self._closed.wait(0.1)
            except Exception:  # what this worker cannot count now, it may be able to count at the next scrape
                _log.exception("this worker cannot tell its metrics")


def _connect(path: str) -> "Connection[bytes, bytes]":
    """A connection to a sibling. Its queue of connections may be full."""
    with socket.socket(socket.AF_UNIX) as line:
        # A time-out of Python's own would not wait at all: on Unix the system refuses at once then.
        line.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _PATIENCE_SECONDS, 0))
        line.connect(path)
        return Connection(line.detach())
