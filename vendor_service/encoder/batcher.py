"""From requests to batches: a device asks for the next batch when it is free, whoever the queries are from.

Images and texts wait in a queue each for the workers of all devices. A query never waits for a batch to
fill: while the devices work, the next batch fills by itself. Only a batch that is full already is taken, and
brought to its device, before the device is free. Too few queries for a pass of their own are left to a device
that works already, which takes them next; but not for long, for it may be at something that takes long.

A short batch of the background is taken when nobody else waits, a very short one if somebody has asked in the
last seconds; and one that is prepared ahead lets pass whoever has come meanwhile. So nobody waits for more
than one of them. Where the devices decode as well, none is begun while queries are being prepared.
"""

import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from shared.embeddings import Kind
from shared.errors import ErrorCode
from shared.fairness import FairQueue
from vendor_service.encoder.batches import Batch, Buckets, Encoded, EncodeJob, QueuedQuery
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queries import Vectors
from vendor_service.errors import APIError

_PAUSE_SECONDS = 1.0
# Too few queries for another device are left to one that works for so long.
_LEFT_SECONDS = 0.02
# So long after somebody has asked, somebody is likely to ask.
_AWAITED_SECONDS = 5.0

_log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The device itself has failed, not what it was asked to do."""


class Device(Protocol):
    """A device that runs the model. Staging may go on beside encoding, on another thread.

    Both raise `DeviceLost` if no further batch will fare better.
    """

    def stage(self, kind: Kind, items: Sequence[Any]) -> Any:  # noqa: ANN401 - its own business
        """Bring queries into the form, and to the place, that `encode` takes them from."""

    def encode(self, kind: Kind, staged: Any) -> Vectors:  # noqa: ANN401
        """Rows of shape (queries, dimensions)."""


class Batcher:
    """The queues, and a worker for each device.

    Args:
        devices: what runs the model, each a copy of it.
        buckets: the sizes of batches.
        observer: is told of waiting times, batches and deaths.
        pause_seconds: after which a worker that died starts anew.
        yields: whether the background waits for queries that are `expected`, too.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        buckets: Buckets,
        observer: Observer,
        pause_seconds: float = _PAUSE_SECONDS,
        *,
        yields: bool = False,
    ) -> None:
        self.deaths = 0
        self.free = 0  # workers that wait for a batch
        self._buckets = buckets
        self._observer = observer
        self._yields = yields
        self._expected = 0  # callers whose queries are being prepared
        self._asked_at = -math.inf  # by one who waits
        self._queues: dict[Kind, FairQueue[QueuedQuery]] = {"image": FairQueue(), "text": FairQueue()}
        self._turns = deque(self._queues)  # the kinds take turns
        self._changed = threading.Condition()
        self._closed = False
        self._workers = [
            _DeviceWorker(number, device, self, observer, pause_seconds)
            for number, device in enumerate(devices)
        ]

    @property
    def living(self) -> int:
        """How many workers are alive."""
        return sum(worker.alive for worker in self._workers)

    @property
    def dead(self) -> int:
        """How many workers have died and are not back yet."""
        return len(self._workers) - self.living

    @property
    def answered_at(self) -> float:
        """When a batch was last answered, by `time.monotonic`."""
        return max((worker.answered_at for worker in self._workers), default=-math.inf)

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet, without those of the background."""
        return self._queues[kind].urgent

    def start(self) -> None:
        """Start the workers."""
        for worker in self._workers:
            worker.start()

    def close(self) -> None:
        """Answer what waits, then end the workers."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for worker in self._workers:
            worker.join()
        # They know the batcher as it knows them, and would keep the model in memory until the garbage
        # collector comes, which leaves alone what a server began with.
        self._workers.clear()

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
        job.done.add_done_callback(lambda _: self._forget(kind, job))
        return job.done

    def _forget(self, kind: Kind, job: EncodeJob) -> None:
        """Drop what waits of a job that was cancelled or failed."""
        if job.untaken:
            with self._changed:
                queue = self._queues[kind]
                queue.drop(job.account, lambda query: query.job is job, background=job.background)

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
        """Wait for a batch to fill, for which no other device is free; `None` once it is `over`."""
        with self._changed:
            while not over.is_set():
                batch = None if self.free else self._full_batch()
                if batch is not None:
                    return batch
                self._changed.wait()
        return None

    def passing_batch(self) -> Batch | None:
        """A batch that passes one of the background, if somebody waits for it, or is to be waited for."""
        with self._changed:
            while True:
                batch = self._urgent_batch(1)
                if batch is not None or self._closed or not self._is_yielding:
                    return batch
                self._changed.wait()

    def notify(self) -> None:
        """Have whoever waits look whether it is over."""
        with self._changed:
            self._changed.notify_all()

    def mark_dead(self) -> None:
        """Count a death; where no worker is left, nobody waits in vain."""
        with self._changed:
            self.deaths += 1
            self._observer.died()
            self._changed.notify_all()  # who left something to this worker takes it now
            if not self.living:
                for queue in self._queues.values():
                    for job in dict.fromkeys(query.job for query in queue.clear()):
                        job.fail(_starting_again())

    # Which batch is next.

    @property
    def _someone_waits(self) -> bool:
        return any(queue.urgent for queue in self._queues.values())

    @property
    def _is_yielding(self) -> bool:
        return self._yields and self._expected > 0

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


def _starting_again() -> APIError:
    message = "the model failed and starts again; nothing was charged"
    return APIError(ErrorCode.NOT_READY, message, retry_after=1)


@dataclass(frozen=True)
class _Staged:
    """A batch, and what its device made of it or why it could not."""

    batch: Batch
    staged: Any
    error: Exception | None = None


class _DeviceWorker:
    """One thread that runs batches on a device, and one that stages the next batch meanwhile.

    A batch that fails is run again caller by caller, so that a bad one harms no neighbour. Whatever else
    goes wrong kills the worker: its batches are answered 503, and after `pause_seconds` it starts anew.
    """

    def __init__(
        self, number: int, device: Device, source: Batcher, observer: Observer, pause_seconds: float
    ) -> None:
        self.alive = True
        self.answered_at = -math.inf  # a batch, by `time.monotonic`
        self._device = device
        self._source = source
        self._observer = observer
        self._pause_seconds = pause_seconds
        self._held: list[Batch] = []
        self._closed = threading.Event()
        self._stager = ThreadPoolExecutor(1, thread_name_prefix=f"stager-{number}")
        self._thread = threading.Thread(target=self._live, name=f"worker-{number}", daemon=True)

    def start(self) -> None:
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
        for batch in self._held:
            batch.fail(_starting_again())
        self._held = []
        self._source.mark_dead()
        self._closed.wait(self._pause_seconds)
        self.alive = True

    def _work(self) -> None:
        ahead: _Staged | None = None
        while True:
            staged, ahead = self._choose(ahead)
            if staged is None:
                return
            over = threading.Event()
            looking = self._stager.submit(self._look_ahead, over) if ahead is None else None
            try:
                self._run(staged)
                self._held.remove(staged.batch)
            finally:
                over.set()
                self._source.notify()
                if looking is not None:
                    ahead = looking.result()

    def _choose(self, ahead: _Staged | None) -> tuple[_Staged | None, _Staged | None]:
        """The batch to run now, and the one that stays prepared: of the background, if somebody passes it."""
        if ahead is None:
            batch = self._source.next_batch()
            return (None if batch is None else self._stage(batch)), None
        passing = self._source.passing_batch() if ahead.batch.background else None
        return (ahead, None) if passing is None else (self._stage(passing), ahead)

    def _look_ahead(self, over: threading.Event) -> _Staged | None:
        batch = self._source.full_batch(over)
        return None if batch is None else self._stage(batch)

    def _stage(self, batch: Batch) -> _Staged:
        self._held.append(batch)
        try:
            return _Staged(batch, self._device.stage(batch.kind, batch.items))
        except Exception as error:
            return _Staged(batch, None, error)

    def _run(self, staged: _Staged) -> None:
        batch = staged.batch
        try:
            if staged.error is not None:
                raise staged.error
            left = batch.without_gone()
            if left is batch:
                self._encode(batch, staged.staged)
            elif left.queries:
                self._encode(left, self._device.stage(left.kind, left.items))
        except DeviceLost:
            raise
        except Exception as error:
            # Its frames hold what the pass made, memory that the next passes need.
            traceback.clear_frames(error.__traceback__)
            self._run_apart(batch.without_gone(), error)

    def _run_apart(self, batch: Batch, error: Exception) -> None:
        """Run a batch that failed caller by caller; where there is one caller alone, it is at fault."""
        callers = batch.by_caller()
        if len(callers) > 1:
            _log.warning("a batch of %d callers failed, and is run again one by one", len(callers))
        for alone in callers:
            try:
                if len(callers) == 1:
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
        rows = self._device.encode(batch.kind, staged)
        seconds = time.perf_counter() - began
        self._observer.ran(batch.kind, len(rows), seconds)
        batch.answer(rows, seconds)
        self.answered_at = time.monotonic()
