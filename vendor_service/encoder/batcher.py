"""From requests to batches: a device asks for the next batch when it is free, whoever the queries are from.

Images and texts wait in a queue each for the workers of all devices. A query never waits for a batch to
fill: while the devices work, the next batch fills by itself. Only a batch that is full already is taken, and
brought to its device, before the device is free. Nothing has to be brought to processors, so there it is left
to whichever device is free first. Too few queries for a pass of their own are left to a device that works
already, which takes them next; but not for long, for it may be at something that takes long.

A short batch of the background is taken when nobody else waits, a very short one if somebody has asked in the
last seconds; and one that is prepared ahead lets pass whoever has come meanwhile. So nobody waits for more
than one of them. Where the devices decode as well, none is begun while queries are being prepared.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.fairness import FairQueue
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queries import Encoded, Vectors
from vendor_service.encoder.replica import Buckets
from vendor_service.errors import APIError

# Too few queries for another device are left to one that works for so long.
_LEFT_SECONDS = 0.02
# So long after somebody has asked, somebody is likely to ask.
_AWAITED_SECONDS = 5.0


@dataclass(eq=False)
class EncodeJob:
    """One caller's queries of one kind, and their rows so far; several devices may answer them."""

    account: str
    items: Sequence[Any]
    background: bool = False
    done: "Future[Encoded]" = field(default_factory=Future)
    queued_at: float = field(default_factory=time.perf_counter)
    untaken: int = field(init=False)
    waited: float = 0.0
    _left: int = field(init=False)
    _ran: float = 0.0
    _rows: Vectors | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.untaken = self._left = len(self.items)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more: it was cancelled, or it failed."""
        return self.done.done()

    def answer(self, places: Sequence[int], rows: Vectors, seconds: float) -> None:
        """Take the rows of the queries at these places; the caller is told when they were the last."""
        with self._lock:
            if self._rows is None:
                self._rows = np.empty((len(self.items), rows.shape[1]), dtype=np.float32)
            self._rows[places] = rows
            self._ran += seconds
            self._left -= len(places)
            if self._left:
                return
        with suppress(InvalidStateError):  # its caller has gone
            self.done.set_result(Encoded(self._rows, self.waited, self._ran))

    def fail(self, error: Exception) -> None:
        """Tell its caller why there is no answer."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


class QueuedQuery(NamedTuple):
    """One query of a job."""

    job: EncodeJob
    place: int


@dataclass(frozen=True)
class Batch:
    """Queries of one kind, of one or more callers, for one forward pass; or of the `background`."""

    kind: Kind
    queries: Sequence[QueuedQuery]
    background: bool = False

    @property
    def items(self) -> list[Any]:
        """The queries, in the order of the rows that answer them."""
        return [job.items[place] for job, place in self.queries]

    @property
    def jobs(self) -> list[EncodeJob]:
        """The callers' jobs."""
        return list(dict.fromkeys(job for job, _ in self.queries))

    def without_gone(self) -> "Batch":
        """Itself, or what is left of it once some callers have gone."""
        left = [query for query in self.queries if not query.job.gone]
        return self if len(left) == len(self.queries) else replace(self, queries=left)

    def by_caller(self) -> "list[Batch]":
        """A batch for each caller."""
        return [
            replace(self, queries=[query for query in self.queries if query.job is job]) for job in self.jobs
        ]

    def answer(self, rows: Vectors, seconds: float) -> None:
        """Give each caller its rows."""
        for job in self.jobs:
            mine = [row for row, query in enumerate(self.queries) if query.job is job]
            job.answer([self.queries[row].place for row in mine], rows[mine], seconds)

    def fail(self, error: Exception) -> None:
        """Tell each caller why there is no answer."""
        for job in self.jobs:
            job.fail(error)


class Batcher:
    """The queues, which the workers of all devices take batches from.

    Args:
        workers: how many there are; each tells when it is dead, and when it lives again.
        buckets: the sizes of batches.
        observer: is told of waiting times and deaths.
        on_processors: whether the devices are the processors that decode: nothing is prepared ahead for
            them, and the background waits for queries that are `expected`, too.

    Attributes:
        living: how many workers are alive.
        dead: how many have died and are not back yet.
        deaths: how often one has died.
        free: how many wait for a batch.
        answered_at: when a batch was last answered, by `time.monotonic`.
    """

    def __init__(
        self, workers: int, buckets: Buckets, observer: Observer, *, on_processors: bool = False
    ) -> None:
        self.living = workers
        self.dead = self.deaths = self.free = 0
        self.answered_at = -math.inf
        self._buckets = buckets
        self._observer = observer
        self._on_processors = on_processors
        self._expected = 0  # callers whose queries are being prepared
        self._asked_at = -math.inf  # by one who waits
        self._queues: dict[Kind, FairQueue[QueuedQuery]] = {"image": FairQueue(), "text": FairQueue()}
        self._turns = deque(self._queues)  # the kinds take turns
        self._changed = threading.Condition()
        self._closed = False

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet, without those of the background."""
        return self._queues[kind].urgent

    def close(self) -> None:
        """Take no more queries; the workers end once they have answered what waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def submit(
        self, account: str, kind: Kind, items: Sequence[Any], *, background: bool = False
    ) -> "Future[Encoded]":
        """Queue one caller's queries, as `Device.stage` takes them; cancelling the future takes them back.

        Raises:
            APIError: the vendor stops (`shutting_down`), or no worker lives (`not_ready`).
        """
        job = EncodeJob(account, items, background)
        with self._changed:
            if self._closed:
                raise APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)
            if not self.living:
                raise APIError(ErrorCode.NOT_READY, "the model is starting again; try again", retry_after=1)
            queries = [QueuedQuery(job, place) for place in range(len(items))]
            self._queues[kind].put(account, queries, background=background)
            if not background:
                self._asked_at = time.monotonic()
            self._changed.notify_all()
        # It knows the future alone: by its job the future would know itself, and keep the rows in memory.
        job.done.add_done_callback(partial(self._forget, kind, account, background))
        return job.done

    def _forget(self, kind: Kind, account: str, background: bool, done: "Future[Encoded]") -> None:
        """Drop what waits of a job that was cancelled or failed."""
        if done.cancelled() or done.exception() is not None:
            with self._changed:
                self._queues[kind].drop(account, lambda query: query.job.done is done, background=background)

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Queries of a caller who waits are being prepared meanwhile."""
        with self._changed:
            self._expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._expected -= 1
                self._changed.notify_all()

    # What the workers ask.

    def next_batch(self) -> Batch | None:
        """Wait for a batch, now that a device is free; `None` once closed, and nothing waits."""
        free_since = time.perf_counter()
        with self._changed:
            while True:
                batch = self._urgent_batch(self._least, free_since) or self._background_batch()
                if batch is not None or self._closed:
                    return batch
                left = free_since + _LEFT_SECONDS - time.perf_counter()
                self.free += 1
                self._changed.wait((left if left > 0 else _LEFT_SECONDS) if self._someone_waits else None)
                self.free -= 1

    def full_batch(self, over: threading.Event) -> Batch | None:
        """Wait for a batch to fill, for which no other device is free; `None` once it is `over`.

        On processors there is none: another one may be free before the one that asks.
        """
        with self._changed:
            while not (self._on_processors or over.is_set()):
                batch = None if self.free else self._full_batch()
                if batch is not None:
                    return batch
                self._changed.wait()
        return None

    def passing_batch(self) -> Batch | None:
        """A batch that passes one of the background, if somebody waits for it."""
        with self._changed:
            return self._urgent_batch(1)

    def notify(self) -> None:
        """Have whoever waits look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def mark_dead(self) -> None:
        """Count a death; where no worker is left, nobody waits in vain."""
        with self._changed:
            self.living -= 1
            self.dead += 1
            self.deaths += 1
            self._observer.died()
            self._changed.notify_all()  # who left something to this worker takes it now
            if not self.living:
                for queue in self._queues.values():
                    for job in dict.fromkeys(query.job for query in queue.clear()):
                        job.fail(starting_again())

    def mark_alive(self) -> None:
        """Count a worker that has died as one that works again."""
        with self._changed:
            self.living += 1
            self.dead -= 1

    # Which batch is next.

    @property
    def _someone_waits(self) -> bool:
        return any(queue.urgent for queue in self._queues.values())

    @property
    def _is_yielding(self) -> bool:
        return self._on_processors and self._expected > 0

    @property
    def _least(self) -> int:
        """How many queries are worth a pass on the device that asks: any, unless another one works."""
        another_works = self.living - self.free > 1
        return self._buckets.least if another_works and not self._closed else 1

    def _urgent_batch(self, least: int, free_since: float = -math.inf) -> Batch | None:
        """A batch of the kind whose turn it is, if `least` of it wait, or one has waited for long.

        The device that asks has been free since that moment.
        """
        crowded = any(queue.urgent >= least for queue in self._queues.values())
        for kind in self._turns:
            queue = self._queues[kind]
            first = queue.peek(background=False)
            if first is None:
                continue
            # Where there is enough of the other kind, this one must not be passed over for ever.
            waited_since = first.job.queued_at if crowded else max(first.job.queued_at, free_since)
            if queue.urgent >= least or time.perf_counter() > waited_since + _LEFT_SECONDS:
                return self._take(kind, self._buckets.fit(queue.urgent, 1 + self.free))
        return None

    def _background_batch(self) -> Batch | None:
        if self._someone_waits or self._is_yielding:
            return None
        small = self._buckets.background
        awaited = time.monotonic() < self._asked_at + _AWAITED_SECONDS
        for kind in self._turns:
            if len(self._queues[kind]):
                size = small.fit(len(self._queues[kind]), 1 + self.free)
                return self._take(kind, min(size, small.shortest) if awaited else size, background=True)
        return None

    def _full_batch(self) -> Batch | None:
        """The largest batch of the kind whose turn it is; a kind that is not full yet is not passed over."""
        largest = self._buckets.largest
        for kind in self._turns:
            if count := self.waiting(kind):
                return self._take(kind, largest) if count >= largest else None
        for kind in self._turns:
            if count := len(self._queues[kind]):
                return self._background_batch() if count >= self._buckets.background.largest else None
        return None

    def _take(self, kind: Kind, size: int, *, background: bool = False) -> Batch:
        queue = self._queues[kind]
        queries = [query for _ in range(size) if (query := queue.take(background=background)) is not None]
        for job, _ in queries:
            if job.untaken == len(job.items):
                job.waited = time.perf_counter() - job.queued_at
                self._observer.waited(kind, job.waited)
            job.untaken -= 1
        self._turns.remove(kind)
        self._turns.append(kind)
        return Batch(kind, queries, background)


def starting_again() -> APIError:
    """Why there is no answer where a device has failed."""
    message = "the model failed and starts again; nothing was charged"
    return APIError(ErrorCode.NOT_READY, message, retry_after=1)
