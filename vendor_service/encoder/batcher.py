"""From requests to batches: the device asks for the next batch when it is free, whoever the queries are from.

Two lanes, images and texts, wait for one worker thread. Nothing is timed: a query never waits for a
batch to fill, and while the device works the next batch fills by itself.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.observer import Observer
from vendor_service.errors import Refusal

Vectors = NDArray[np.float32]
Item = TypeVar("Item")
Pixels = TypeVar("Pixels")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """Rows of shape (queries, dimensions); the seconds that they waited, and that their batches ran."""

    rows: Vectors
    waited: float
    ran: float


@dataclass(eq=False)
class _Job(Generic[Item]):
    """One caller's queries of one kind, and the rows that are answered so far."""

    items: Sequence[Item]
    taken: int = 0
    rows: list[Vectors] = field(default_factory=list)
    queued_at: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    ran: float = 0.0
    done: "Future[Encoded]" = field(default_factory=Future)


class Lane(Generic[Item]):
    """Queries of one kind, first come first served; `encode` maps up to `max_batch` of them to rows."""

    def __init__(
        self, kind: Kind, encode: Callable[[Sequence[Item]], Vectors], max_batch: int, observer: Observer
    ) -> None:
        self.kind = kind
        self._encode = encode
        self._max_batch = max_batch
        self._observer = observer
        self._jobs: deque[_Job[Item]] = deque()

    @property
    def waiting(self) -> int:
        """Queries that no batch has taken yet."""
        return sum(len(job.items) - job.taken for job in tuple(self._jobs))

    def put(self, items: Sequence[Item]) -> "Future[Encoded]":
        """Queue one caller's queries; the future gives their rows."""
        job = _Job(items)
        self._jobs.append(job)
        return job.done

    def take(self) -> Callable[[], None]:
        """Take the next batch, as a function that encodes it; callers that have gone are left out."""
        batch: list[tuple[_Job[Item], Sequence[Item]]] = []
        room = self._max_batch
        while self._jobs and room:
            job = self._jobs[0]
            share = () if job.done.done() else job.items[job.taken : job.taken + room]
            if share and not job.taken:
                job.waited = time.perf_counter() - job.queued_at
                self._observer.waited(self.kind, job.waited)
            job.taken += len(share)
            room -= len(share)
            if share:
                batch.append((job, share))
            if not share or job.taken == len(job.items):
                self._jobs.popleft()
        return partial(self._run, batch)

    def _run(self, batch: list[tuple[_Job[Item], Sequence[Item]]]) -> None:
        if not batch:
            return
        began = time.perf_counter()
        try:
            rows = self._encode([item for _, share in batch for item in share])
        except Exception as error:
            _log.exception("a batch of %d failed", sum(len(share) for _, share in batch))
            for job, _ in batch:
                with suppress(InvalidStateError):  # its caller has gone
                    job.done.set_exception(error)
            return
        seconds = time.perf_counter() - began
        self._observer.ran(self.kind, len(rows), seconds)
        start = 0
        for job, share in batch:
            job.ran += seconds
            job.rows.append(rows[start : start + len(share)])
            start += len(share)
            if sum(map(len, job.rows)) == len(job.items):
                with suppress(InvalidStateError):
                    job.done.set_result(Encoded(np.concatenate(job.rows), job.waited, job.ran))


class Batcher(Generic[Pixels]):
    """The worker thread of one device, and the two lanes that wait for it in turn.

    Args:
        encode_images: maps decoded images to rows of shape (images, dimensions).
        encode_texts: maps texts to rows of shape (texts, dimensions).
        max_batch: the most queries that either is given at once.
        max_waiting: the most queries that may wait; beyond it callers are refused, not kept waiting.
        observer: is told of waiting times and of batches.
    """

    def __init__(
        self,
        encode_images: Callable[[Sequence[Pixels]], Vectors],
        encode_texts: Callable[[Sequence[str]], Vectors],
        *,
        max_batch: int,
        max_waiting: int,
        observer: Observer,
    ) -> None:
        self._images = Lane("image", encode_images, max_batch, observer)
        self._texts = Lane("text", encode_texts, max_batch, observer)
        self._turns: deque[Lane[Pixels] | Lane[str]] = deque([self._images, self._texts])
        self._max_waiting = max_waiting
        self._changed = threading.Condition()
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="encoder", daemon=True)

    def start(self) -> None:
        """Start the worker thread."""
        self._worker.start()

    def close(self) -> None:
        """Answer what waits, then end the worker thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet."""
        return (self._images if kind == "image" else self._texts).waiting

    def submit(self, images: Sequence[Pixels], texts: Sequence[str]) -> list["Future[Encoded]"]:
        """Queue one caller's queries: a future of rows for the images, if any, then for the texts, if any.

        Cancelling a future takes its queries back.

        Raises:
            Refusal: too much is waiting (`overloaded`), or the vendor stops (`shutting_down`).
        """
        with self._changed:
            if self._closed:
                raise Refusal(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)
            waiting = sum(lane.waiting for lane in self._turns)
            if waiting + len(images) + len(texts) > self._max_waiting:
                raise Refusal(ErrorCode.OVERLOADED, "the vendor is overloaded; try again", retry_after=1)
            futures = [self._images.put(images)] if images else []
            futures += [self._texts.put(texts)] if texts else []
            self._changed.notify()
        return futures

    def _work(self) -> None:
        while (run := self._next_batch()) is not None:
            run()

    def _next_batch(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                self._turns.rotate(1)
                for lane in self._turns:
                    if lane.waiting:
                        return lane.take()
                if self._closed:
                    return None
                self._changed.wait()
