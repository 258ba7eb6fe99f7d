"""The worker of one device: it runs one batch while the next one is prepared on another thread."""

import logging
import math
import threading
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queries import Vectors
from vendor_service.encoder.queues import Batch
from vendor_service.errors import APIError

_log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The device itself has failed, not what it was asked to do."""


class Device(Protocol):
    """What runs the model. Staging may go on beside encoding, on another thread."""

    def stage(self, kind: Kind, items: Sequence[Any]) -> Any:  # noqa: ANN401 - its own business
        """Bring queries into the form, and to the place, that `encode` takes them from.

        Raises:
            DeviceLost: no further batch will fare better.
        """

    def encode(self, kind: Kind, staged: Any, *, alone: bool = False) -> Vectors:  # noqa: ANN401
        """Rows of shape (queries, dimensions); `alone` is a query beside no other.

        Raises:
            DeviceLost: no further batch will fare better.
        """


class Source(Protocol):
    """Where a worker gets its batches from, and whom it tells that it died."""

    def next_batch(self, *, first: bool) -> Batch | None:
        """Wait for a batch, for the `first` device or another; `None` ends the worker."""

    def full_batch(self, over: threading.Event) -> Batch | None:
        """Wait for a batch to fill, for which no other device is free; `None` once it is `over`."""

    def urgent_batch(self) -> Batch | None:
        """A batch that is not of the background, if somebody waits for one."""

    def notify(self) -> None:
        """Have whoever waits look whether it is over."""

    def mark_dead(self) -> None:
        """A worker died; it is back after a pause."""


@dataclass(frozen=True)
class _Prepared:
    """A batch, and what its device made of it or why it could not."""

    batch: Batch
    staged: Any
    error: Exception | None = None


class DeviceWorker:
    """One thread that runs batches on a device, and one that stages them.

    A batch that fails is run again caller by caller, so that a bad one harms no neighbour. Whatever else
    goes wrong kills the worker: its batches are answered 503, and after `pause_seconds` it starts anew.
    """

    def __init__(
        self, number: int, device: Device, source: Source, observer: Observer, pause_seconds: float
    ) -> None:
        self.alive = True
        self.answered_at = -math.inf  # a batch, by `time.monotonic`
        self._is_first = number == 0
        self._device = device
        self._source = source
        self._observer = observer
        self._pause_seconds = pause_seconds
        self._held: list[Batch] = []
        self._closed = threading.Event()
        self._stager = ThreadPoolExecutor(1, thread_name_prefix=f"stager-{number}")
        self._thread = threading.Thread(target=self._live, name=f"worker-{number}", daemon=True)

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which comes once the source has no batch any more."""
        self._closed.set()
        self._thread.join()
        self._stager.shutdown()

    def _live(self) -> None:
        while True:
            try:
                self._work()
            except BaseException:
                _log.exception("the worker of a device died; it starts again in %s s", self._pause_seconds)
                self._die()
            else:
                return

    def _die(self) -> None:
        self.alive = False
        message = "the model failed and starts again; nothing was charged"
        for batch in self._held:
            batch.fail(APIError(ErrorCode.NOT_READY, message, retry_after=1))
        self._held = []
        self._source.mark_dead()
        self._closed.wait(self._pause_seconds)
        self.alive = True

    def _work(self) -> None:
        ahead: _Prepared | None = None
        while True:
            prepared, ahead = self._choose(ahead)
            if prepared is None:
                return
            over = threading.Event()
            looking = self._stager.submit(self._look_ahead, over) if ahead is None else None
            try:
                self._run(prepared)
                self._held.remove(prepared.batch)
            finally:
                over.set()
                self._source.notify()
                if looking is not None:
                    ahead = looking.result()

    def _choose(self, ahead: _Prepared | None) -> tuple[_Prepared | None, _Prepared | None]:
        """What to run now, and what stays prepared: one of the background, if somebody cannot wait for it."""
        if ahead is None:
            batch = self._source.next_batch(first=self._is_first)
            return (None if batch is None else self._prepare(batch)), None
        urgent = self._source.urgent_batch() if ahead.batch.background else None
        return (ahead, None) if urgent is None else (self._prepare(urgent), ahead)

    def _look_ahead(self, over: threading.Event) -> _Prepared | None:
        batch = self._source.full_batch(over)
        return None if batch is None else self._prepare(batch)

    def _prepare(self, batch: Batch) -> _Prepared:
        self._held.append(batch)
        try:
            return _Prepared(batch, self._device.stage(batch.kind, batch.items))
        except Exception as error:
            return _Prepared(batch, None, error)

    def _run(self, prepared: _Prepared) -> None:
        batch = prepared.batch
        try:
            if prepared.error is not None:
                raise prepared.error
            left = batch.without_gone()
            if left is batch:
                self._encode(batch, prepared.staged)
            elif left.parts:
                self._encode(left, self._device.stage(left.kind, left.items))
        except DeviceLost:
            raise
        except Exception as error:
            # Its frames hold what the pass made, memory that the next passes need.
            traceback.clear_frames(error.__traceback__)
            self._run_apart(batch.without_gone(), error)

    def _run_apart(self, batch: Batch, error: Exception) -> None:
        if len(batch.parts) > 1:
            _log.warning("a batch of %d callers failed, and is run again one by one", len(batch.parts))
        for alone in batch.by_caller():
            try:
                if len(batch.parts) == 1:
                    raise error
                self._encode(alone, self._device.stage(alone.kind, alone.items))
            except DeviceLost:
                raise
            except Exception as its_own:
                _log.error("a batch of %d failed", len(alone.items), exc_info=its_own)
                traceback.clear_frames(its_own.__traceback__)
                alone.fail(its_own)

    def _encode(self, batch: Batch, staged: Any) -> None:  # noqa: ANN401
        began = time.perf_counter()
        rows = self._device.encode(batch.kind, staged, alone=batch.alone)
        seconds = time.perf_counter() - began
        self._observer.ran(batch.kind, len(rows), seconds)
        batch.answer(rows, seconds)
        self.answered_at = time.monotonic()
