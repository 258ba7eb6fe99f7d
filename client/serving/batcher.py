"""From image files to probabilities: decoded on threads, and answered in batches across requests.

Each thread that runs the student takes the next batch when it is free, whoever the images are from. An image
never waits for a batch to fill, and while the student works the next batch fills by itself.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from client.data.images import Pixels
from client.learning.prediction import Classifier
from client.serving.decoding import ImageDecoder, LargeImage
from client.serving.metrics import Metrics
from shared.errors import APIError, ErrorCode
from shared.fairness import FairQueue

_LARGEST_BATCH = 32

_log = logging.getLogger(__name__)

Row = NDArray[np.float32]


@dataclass(eq=False)
class _Request:
    """The images of one request, and what became of them; it belongs to the event loop."""

    account: str
    files: Sequence[bytes | str]
    answered: "asyncio.Future[None]"
    results: list[Row | APIError | None] = field(init=False)
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.files)
        self.left = len(self.files)


class _Item(NamedTuple):
    """One image of a request."""

    request: _Request
    position: int

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return not self.request.answered.done()


class Batcher:
    """The threads that decode, and those that run the student, each a batch of its own.

    Args:
        classifier: the student, which several threads may ask at once; each computes on its own.
        decoder: makes its squares of files.
        metrics: is told of images and batches.
        threads: how many decode, and how many run the student; one more decodes large images.
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
        self._undecoded: FairQueue[_Item] = FairQueue()
        self._large: FairQueue[_Item] = FairQueue()
        self._ready: deque[tuple[_Item, Pixels]] = deque()
        lock = threading.Lock()
        self._to_decode, self._to_decode_large, self._to_classify = (threading.Condition(lock) for _ in "123")
        # More than these are left undecoded, so that accounts take turns.
        self._most_ready = (1 + threads) * _LARGEST_BATCH
        self._closed = False
        self._threads = [self._thread("decode-large", self._decode_all, self._large, self._to_decode_large)]
        for number in range(threads):
            self._threads += [
                self._thread(f"decode-{number}", self._decode_all, self._undecoded, self._to_decode),
                self._thread(f"student-{number}", self._classify_all),
            ]

    @property
    def waiting(self) -> int:
        """How many images no batch has taken yet."""
        return len(self._undecoded) + len(self._large) + len(self._ready)

    def start(self) -> None:
        """Start the threads; it is called where the event loop runs."""
        self._loop = asyncio.get_running_loop()
        for each in self._threads:
            each.start()

    def close(self) -> None:
        """End the threads. Whoever still waits is not answered."""
        with self._to_decode:
            self._closed = True
            for each in (self._to_decode, self._to_decode_large, self._to_classify):
                each.notify_all()
        for thread in self._threads:
            thread.join()

    async def probabilities(self, account: str, files: Sequence[bytes | str]) -> list[Row | APIError]:
        """How likely each class is, of shape (classes,), for each file; or why the file cannot be read.

        Raises:
            APIError: `internal_error`, if the student fails.
        """
        request = _Request(account, files, self._loop.create_future())
        with self._to_decode:
            self._undecoded.put(account, [_Item(request, position) for position in range(len(files))])
            self._to_decode.notify(len(files))
        await request.answered  # where it is cancelled, its images are no longer wanted
        return [each for each in request.results if each is not None]

    @staticmethod
    def _thread(name: str, work: Callable[..., None], *given: object) -> threading.Thread:
        return threading.Thread(target=work, args=given, name=name, daemon=True)

    def _decode_all(self, queue: FairQueue[_Item], changed: threading.Condition) -> None:
        large = queue is self._large
        while True:
            with changed:
                while not self._closed and (not len(queue) or len(self._ready) >= self._most_ready):
                    changed.wait()
                item = None if self._closed else queue.take()
            if item is None:
                return
            if item.wanted:
                self._decode(item, large=large)

    def _decode(self, item: _Item, *, large: bool) -> None:
        began = time.perf_counter()
        try:
            pixels = self._decoder.decode(item.request.files[item.position], large=large)
        except LargeImage:
            with self._to_decode_large:
                self._large.put(item.request.account, [item])
                self._to_decode_large.notify()
            return
        except APIError as error:
            self._metrics.refused_input(error.code)
            self._tell([(item, error)])
            return
        except Exception:
            _log.exception("an image could not be decoded")
            self._tell([(item, APIError(ErrorCode.INVALID_IMAGE, "the image cannot be read"))])
            return
        self._metrics.decoded(time.perf_counter() - began)
        with self._to_classify:
            self._ready.append((item, pixels))
            self._to_classify.notify()

    def _classify_all(self) -> None:
        while True:
            with self._to_classify:
                while not self._closed and not self._ready:
                    self._to_classify.wait()
                if self._closed:
                    return
                count = min(len(self._ready), _LARGEST_BATCH)
                batch = [self._ready.popleft() for _ in range(count)]
                self._to_decode.notify(count)
                self._to_decode_large.notify()
            batch = [(item, pixels) for item, pixels in batch if item.wanted]
            if batch:
                self._classify(batch)

    def _classify(self, batch: list[tuple[_Item, Pixels]]) -> None:
        began = time.perf_counter()
        try:
            rows: Sequence[Row | APIError] = list(
                self._classifier.probabilities(np.stack([pixels for _, pixels in batch]))
            )
        except Exception:
            _log.exception("the student failed")
            message = "the student failed; the request may be sent again"
            rows = [APIError(ErrorCode.INTERNAL_ERROR, message)] * len(batch)
        self._metrics.ran(len(batch), time.perf_counter() - began)
        self._tell([(item, row) for (item, _), row in zip(batch, rows, strict=True)])

    def _tell(self, results: list[tuple[_Item, Row | APIError]]) -> None:
        self._loop.call_soon_threadsafe(_note, results)


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
