"""From image files to probabilities: decoded in processes, and answered in batches across requests.

Each thread that runs the student takes the next batch when it is free, whoever the images are from. An image
never waits for a batch to fill, and while the student works the next batch fills by itself.
"""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.data.images import Pixels
from client.learning.prediction import Classifier
from client.serving.decoding import ImageDecoder
from client.serving.metrics import Metrics
from shared.errors import APIError, ErrorCode
from shared.fairness import FairQueue

_LARGEST_BATCH = 32
# A batch is to take no longer, so that whoever comes meanwhile is soon next; on processors, images in small
# batches take about as long as in large ones.
_BATCH_SECONDS = 0.015

# The student gives way to decoders and the event loop. So a caller with many small images, for whom it is the
# bottleneck, leaves the decoders to others.
_NICENESS = 5

_log = logging.getLogger(__name__)

Row = NDArray[np.float32]


@dataclass(eq=False)
class _Request:
    """The images of one request, and what became of them; it belongs to the event loop."""

    answered: "asyncio.Future[None]"
    results: list[Row | APIError | None]
    left: int


class _Item(NamedTuple):
    """One decoded image of a request."""

    request: _Request
    position: int
    pixels: Pixels

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.request.answered.done()


class Batcher:
    """The processes that decode, and the threads that run the student, each a batch of its own.

    Args:
        classifier: the student, which several threads may ask at once; each computes on its own.
        decoder: makes its squares of files.
        metrics: is told of refused images and of batches.
        threads: how many run the student.
    """

    def __init__(
        self,
        classifier: Classifier,
        decoder: ImageDecoder,
        metrics: Metrics,
        threads: int,
    ) -> None:
        self._classifier = classifier
        self._decoder = decoder
        self._metrics = metrics
        self._ready: FairQueue[_Item] = FairQueue()
        self._changed = threading.Condition()
        self._idle = 0
        self._image_seconds = 0.0  # that the student takes for an image, lately
        self._closed = False
        self._threads = [
            threading.Thread(target=self._classify_all, name=f"student-{number}", daemon=True)
            for number in range(threads)
        ]

    @property
    def waiting(self) -> int:
        """How many images no process and no batch has taken yet."""
        return self._decoder.waiting + len(self._ready)

    async def start(self) -> None:
        """Start processes and threads.

        Raises:
            CannotStart: the processes do not start.
        """
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._decoder.start)
        for each in self._threads:
            each.start()

    async def close(self) -> None:
        """End both. Whoever still waits is not answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._decoder.close)

    async def probabilities(self, account: str, files: Sequence[bytes | str]) -> list[Row | APIError]:
        """How likely each class is, of shape (classes,), for each file; or why the file cannot be read.

        Raises:
            APIError: `internal_error`, if the student fails.
        """
        decoded = await self._decoder.decode(account, files)
        request = _Request(self._loop.create_future(), [None] * len(files), 0)
        items = []
        for position, each in enumerate(decoded):
            if isinstance(each, APIError):
                self._metrics.refused_input(each.code)
                request.results[position] = each
            else:
                items.append(_Item(request, position, each))
        if items:
            request.left = len(items)
            with self._changed:
                self._ready.put(account, items)
                self._changed.notify(len(items))
            await request.answered  # where it is cancelled, its images are no longer wanted
        return [each for each in request.results if each is not None]

    def _classify_all(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while (batch := self._next_batch()) is not None:
            batch = [item for item in batch if item.wanted]
            if batch:
                self._classify(batch)

    def _next_batch(self) -> list[_Item] | None:
        """Wait for images; accounts take turns, and threads that are idle share them. `None` at the end."""
        with self._changed:
            self._idle += 1
            while not self._closed and not len(self._ready):
                self._changed.wait()
            if self._closed:
                return None
            share = -(-len(self._ready) // self._idle)
            soon = _BATCH_SECONDS / self._image_seconds if self._image_seconds else 1
            self._idle -= 1
            taken = (self._ready.take() for _ in range(min(share, _LARGEST_BATCH, max(1, int(soon)))))
            return [item for item in taken if item is not None]

    def _classify(self, batch: list[_Item]) -> None:
        began = time.perf_counter()
        try:
            pixels = np.stack([item.pixels for item in batch])
            rows: Sequence[Row | APIError] = list(self._classifier.probabilities(pixels))
        except Exception:
            _log.exception("the student failed")
            message = "the student failed; the request may be sent again"
            rows = [APIError(ErrorCode.INTERNAL_ERROR, message)] * len(batch)
        took = time.perf_counter() - began
        with self._changed:
            latest = took / len(batch)
            self._image_seconds = (self._image_seconds + latest) / 2 if self._image_seconds else latest
        self._metrics.ran(len(batch), took)
        self._loop.call_soon_threadsafe(_note, list(zip(batch, rows, strict=True)))


def _note(results: list[tuple[_Item, Row | APIError]]) -> None:
    for item, result in results:
        request = item.request
        request.results[item.position] = result
        request.left -= 1
        if not item.wanted:
            continue
        if isinstance(result, APIError) and result.code is ErrorCode.INTERNAL_ERROR:
            request.answered.set_exception(result)
        elif request.left == 0:
            request.answered.set_result(None)
