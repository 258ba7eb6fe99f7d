"""Queues of queries that wait for the model, one for each kind, fair among accounts."""

import math
import threading
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.embeddings import Kind
from vendor_service.encoder.observer import Observer

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Encoded:
    """Rows of shape (queries, dimensions); the seconds that they waited, and that their batches ran."""

    rows: Vectors
    waited: float
    ran: float


class Buckets:
    """The sizes that batches have, so that a device meets few shapes and can prepare for each of them.

    Where a device `pads`, a batch is filled up with rows that nobody asked for: on a GPU a forward pass of
    few costs as much as one of some more. Otherwise a batch is as many of those that wait as make one of the
    sizes, and the rest follows in the next: on a CPU every row costs its share, asked for or not.
    A second device is given no fewer than `least` at a time: a pass of fewer would cost more than it hastens.
    """

    def __init__(self, sizes: Iterable[int], *, pads: bool, least: int = 1) -> None:
        self.sizes = sorted(sizes)
        self.least = least
        self._pads = pads

    @property
    def largest(self) -> int:
        """The most queries in one batch."""
        return self.sizes[-1]

    @property
    def background(self) -> "Buckets":
        """Those of batches that nobody waits for: short, since whoever does wait comes behind one of them."""
        most = max(self.sizes[0], self.largest // 4)
        return Buckets([each for each in self.sizes if each <= most], pads=self._pads, least=self.least)

    @property
    def shortest(self) -> int:
        """The size of such a batch where somebody is likely to come: as few as are worth a pass."""
        return self.sizes[bisect_left(self.sizes, min(self.least, self.largest))]

    def fit(self, waiting: int, free: int = 1) -> int:
        """How many of the `waiting` (at least one) make the next batch, where so many devices are `free`."""
        part = waiting if self._pads else max(-(-waiting // free), min(waiting, self.least))
        most = min(part, self.largest)
        return most if self._pads else self.sizes[max(0, bisect_right(self.sizes, most) - 1)]

    def padded(self, queries: int) -> int:
        """The size of the batch that holds so many."""
        return self.sizes[bisect_left(self.sizes, queries)]


@dataclass(eq=False)
class EncodeJob:
    """One caller's queries of one kind, and what is answered of them so far; several devices may do so."""

    account: str
    items: Sequence[Any]
    done: "Future[Encoded]" = field(default_factory=Future)
    taken: int = 0
    queued_at: float = field(default_factory=time.perf_counter)
    _waited: float = 0.0
    _ran: float = 0.0
    _rows: dict[int, Vectors] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gone(self) -> bool:
        """Whether nobody waits for it any more: it was cancelled, or it failed."""
        return self.done.done()

    def take(self, most: int, kind: Kind, observer: Observer) -> "BatchPart":
        """The next queries, up to so many."""
        if not self.taken:
            self._waited = time.perf_counter() - self.queued_at
            observer.waited(kind, self._waited)
        part = BatchPart(self, self.taken, min(self.taken + most, len(self.items)))
        self.taken = part.stop
        return part

    def answer(self, start: int, rows: Vectors, seconds: float) -> None:
        """Take the rows of the queries from `start` on."""
        with self._lock:
            self._rows[start] = rows
            self._ran += seconds
            if sum(map(len, self._rows.values())) < len(self.items):
                return
        whole = np.concatenate([self._rows[start] for start in sorted(self._rows)])
        with suppress(InvalidStateError):  # its caller has gone
            self.done.set_result(Encoded(whole, self._waited, self._ran))

    def fail(self, error: Exception) -> None:
        """Tell its caller why there is no answer."""
        with suppress(InvalidStateError):
            self.done.set_exception(error)


@dataclass(frozen=True)
class BatchPart:
    """Queries of one job that are in one batch."""

    job: EncodeJob
    start: int
    stop: int

    @property
    def items(self) -> Sequence[Any]:
        """The queries."""
        return self.job.items[self.start : self.stop]


@dataclass(frozen=True)
class Batch:
    """Queries of one kind, of one or more callers, for one forward pass; or of the `background`.

    It is `alone` where it is one query, no other waits, and no other device works when it is taken.
    """

    kind: Kind
    parts: Sequence[BatchPart]
    background: bool = False
    alone: bool = False

    @property
    def items(self) -> list[Any]:
        """The queries, in the order of the rows that answer them."""
        return [item for part in self.parts for item in part.items]

    def without_gone(self) -> "Batch":
        """Itself, or what is left of it once some callers have gone."""
        left = [part for part in self.parts if not part.job.gone]
        return self if len(left) == len(self.parts) else replace(self, parts=left)

    def by_caller(self) -> "list[Batch]":
        """A batch for each caller."""
        return [replace(self, parts=[part]) for part in self.parts]

    def answer(self, rows: Vectors, seconds: float) -> None:
        """Give each caller its rows."""
        first = 0
        for part in self.parts:
            count = part.stop - part.start
            part.job.answer(part.start, rows[first : first + count], seconds)
            first += count

    def fail(self, error: Exception) -> None:
        """Tell each caller why there is no answer."""
        for part in self.parts:
            part.job.fail(error)


class FairQueue:
    """Queries of one kind. Its methods are called by one thread at a time.

    Accounts take turns, each with an even part of the batch, so that who has thousands of queries waiting
    delays who has one by no more than a batch. Within an account it is first come, first served.
    """

    def __init__(self, kind: Kind, buckets: Buckets, observer: Observer, *, background: bool = False) -> None:
        self.kind = kind
        self._background = background
        self.waiting = 0  # queries that no batch has taken yet
        self._buckets = buckets
        self._observer = observer
        self._queues: dict[str, deque[EncodeJob]] = {}  # by account, in the order of their turns

    @property
    def full(self) -> bool:
        """Whether the largest batch waits."""
        return self.waiting >= self._buckets.largest

    @property
    def oldest(self) -> float:
        """When the first of those that wait was put here, by `time.perf_counter`; infinite if none does."""
        return min((jobs[0].queued_at for jobs in self._queues.values()), default=math.inf)

    def put(self, account: str, items: Sequence[Any]) -> "Future[Encoded]":
        """Queue one caller's queries."""
        job = EncodeJob(account, items)
        self._queues.setdefault(account, deque()).append(job)
        self.waiting += len(items)
        return job.done

    def take(self, free: int = 1, most: int | None = None) -> Batch | None:
        """Take the next batch, of at `most` so many; `None` if everybody has gone.

        It is for one of the devices that are `free`.
        """
        self._drop_gone()
        if not self.waiting:
            return None
        parts = []
        room = self._buckets.fit(self.waiting, free)
        room = room if most is None else min(room, most)
        self.waiting -= room
        while room:
            account = next(iter(self._queues))
            queue = self._queues.pop(account)
            even = -(-room // (len(self._queues) + 1))
            part = queue[0].take(even, self.kind, self._observer)
            parts.append(part)
            room -= part.stop - part.start
            if part.stop == len(part.job.items):
                queue.popleft()
            if queue:
                self._queues[account] = queue  # behind all others
        return Batch(self.kind, parts, self._background)

    def fail(self, error: Exception) -> None:
        """Tell everybody who waits why there will be no answer."""
        for queue in self._queues.values():
            for job in queue:
                job.fail(error)
        self._drop_gone()

    def _drop_gone(self) -> None:
        left = {
            account: deque(job for job in queue if not job.gone) for account, queue in self._queues.items()
        }
        self._queues = {account: queue for account, queue in left.items() if queue}
        self.waiting = sum(len(job.items) - job.taken for queue in self._queues.values() for job in queue)
