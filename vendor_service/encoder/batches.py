"""Batches: queries of several callers for one forward pass, the sizes that passes have, and their answers."""

import threading
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from shared.embeddings import Kind
from vendor_service.encoder.queries import Vectors


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
        """The size of the next batch, if `waiting` queries (at least one) wait for `free` devices."""
        part = waiting if self._pads else max(-(-waiting // free), min(waiting, self.least))
        most = min(part, self.largest)
        return most if self._pads else self.sizes[max(0, bisect_right(self.sizes, most) - 1)]

    def padded(self, queries: int) -> int:
        """The size of the batch that holds this number."""
        return self.sizes[bisect_left(self.sizes, queries)]


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
