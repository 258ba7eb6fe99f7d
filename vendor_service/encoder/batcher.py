"""From requests to batches: a device asks for the next batch when it is free, whoever the queries are from.

Two queues, images and texts, wait for the workers of all devices. A query never waits for a batch to fill,
and while the devices work the next batch fills by itself. Only a batch that is full already is taken, and
prepared, before its device is free. What is too little for a pass of its own is left to a device that works
already, which takes it next; but not for long, for that device may be at something that takes long. A query
that is alone goes to the first device, which may take more of a processor than beside others.

Two more queues are of the background, which may wait. A short batch of them is taken when nobody else waits,
a very short one where somebody has asked in the last seconds; and one that is prepared ahead lets pass
whatever has come meanwhile. So nobody waits for more than one of them.
Where devices are the very processors that decode, none is begun while somebody's queries are being prepared.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queues import Batch, Buckets, Encoded, FairQueue
from vendor_service.encoder.worker import Device, DeviceWorker
from vendor_service.errors import APIError

_PAUSE_SECONDS = 1.0
# So long is left to a device that works what is too little for another one.
_LEFT_SECONDS = 0.02
# So long after somebody has asked, somebody is likely to ask.
_AWAITED_SECONDS = 5.0


class Batcher:
    """The queues, and a worker for each device.

    Args:
        devices: what runs the model, each a copy of it.
        buckets: the sizes of batches.
        observer: is told of waiting times, batches and deaths.
        pause_seconds: after which a worker that died starts anew.
        yields: whether the background waits for what is `expected`, too.
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
        self._yields = yields
        self._expected = 0  # callers whose queries are being prepared
        self._asked_at = -math.inf  # by one who waits
        self.deaths = 0
        self._observer = observer
        self._buckets = buckets
        self._queues = {kind: FairQueue(kind, buckets, observer) for kind in _KINDS}
        self._round_robin = deque(self._queues.values())
        small = buckets.background
        self._background = {kind: FairQueue(kind, small, observer, background=True) for kind in _KINDS}
        self._background_round_robin = deque(self._background.values())
        self._changed = threading.Condition()
        self.free = 0  # workers that wait for a batch
        self._closed = False
        self._workers = [
            DeviceWorker(number, device, self, observer, pause_seconds)
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

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet, without those of the background."""
        return self._queues[kind].waiting

    def submit(
        self, account: str, kind: Kind, items: Sequence[Any], *, background: bool = False
    ) -> "Future[Encoded]":
        """Queue one caller's queries, as `Device.stage` takes them; cancelling the future takes them back.

        Raises:
            APIError: the vendor stops (`shutting_down`), or no worker lives (`not_ready`).
        """
        with self._changed:
            if self._closed:
                raise APIError(ErrorCode.SHUTTING_DOWN, "the vendor is stopping; try again", retry_after=1)
            if not self.living:
                raise APIError(ErrorCode.NOT_READY, "the model is starting again; try again", retry_after=1)
            future = (self._background if background else self._queues)[kind].put(account, items)
            self._asked_at = self._asked_at if background else time.monotonic()
            self._changed.notify_all()
        return future

    def next_batch(self, *, first: bool) -> Batch | None:
        """Wait for a batch, for the `first` device or another; `None` once closed, and nothing waits."""
        began = time.perf_counter()
        with self._changed:
            while True:
                alone = self._is_alone
                remaining = self._remaining(began)
                if first or not alone:
                    batch = self._take(full=False, least=1 if remaining <= 0 else self._least)
                    if batch is not None or self._closed:
                        return None if batch is None else replace(batch, alone=alone)
                else:
                    self._changed.notify_all()  # the first may have left it to this one
                waiting = any(queue.waiting for queue in self._round_robin)
                self.free += 1
                self._changed.wait((remaining if remaining > 0 else _LEFT_SECONDS) if waiting else None)
                self.free -= 1

    def _remaining(self, began: float) -> float:
        """The seconds for which what waits is left to others by a worker that has waited since it `began`."""
        oldest = min(queue.oldest for queue in self._round_robin)
        return max(began, oldest) + _LEFT_SECONDS - time.perf_counter()

    def full_batch(self, over: threading.Event) -> Batch | None:
        """Wait for a batch to fill, for which no other device is free; `None` once it is `over`."""
        with self._changed:
            while not over.is_set():
                batch = None if self.free else self._take(full=True)
                if batch is not None:
                    return batch
                self._changed.wait()
        return None

    def urgent_batch(self) -> Batch | None:
        """A batch that is not of the background, if somebody waits for one, or is to be waited for."""
        with self._changed:
            while True:
                batch = self._take_turns(self._round_robin, full=False, least=1)
                if batch is not None or self._closed or not self._is_yielding:
                    return batch
                self._changed.wait()

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

    @property
    def _is_yielding(self) -> bool:
        return self._yields and self._expected > 0

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
                message = "the model failed and starts again; nothing was charged"
                for queue in (*self._round_robin, *self._background_round_robin):
                    queue.fail(APIError(ErrorCode.NOT_READY, message, retry_after=1))

    @property
    def _is_idle(self) -> bool:
        """Whether no worker works but the one that asks."""
        return self.living - self.free <= 1

    @property
    def _is_alone(self) -> bool:
        """Whether one query is all that there is to do, and the first worker is there to take it."""
        queues = (*self._round_robin, *self._background_round_robin)
        return not self.dead and self._is_idle and sum(queue.waiting for queue in queues) == 1

    @property
    def _least(self) -> int:
        """How many queries must wait for the worker that asks: any, unless another one works."""
        return 1 if self._closed or self._is_idle else self._buckets.least

    def _take(self, *, full: bool, least: int = 1) -> Batch | None:
        batch = self._take_turns(self._round_robin, full=full, least=least)
        if batch is not None or self._is_yielding or any(queue.waiting for queue in self._round_robin):
            return batch
        awaited = time.monotonic() < self._asked_at + _AWAITED_SECONDS
        most = self._buckets.shortest if awaited else None
        return self._take_turns(self._background_round_robin, full=full, least=1, most=most)

    def _take_turns(
        self, queues: deque[FairQueue], *, full: bool, least: int, most: int | None = None
    ) -> Batch | None:
        crowded = any(queue.waiting >= least for queue in queues)
        late = time.perf_counter() - _LEFT_SECONDS
        for queue in tuple(queues):
            # What is too little is left to a device that works, but not for whatever else keeps coming.
            if queue.waiting < least and not (crowded and queue.oldest < late):
                continue
            if full and not queue.full:
                return None  # it is this queue's turn, full or not: it must not be passed over for ever
            batch = queue.take(1 if full else 1 + self.free, most)
            if batch is not None:
                queues.remove(queue)
                queues.append(queue)
                return batch
        return None


_KINDS: tuple[Kind, ...] = ("image", "text")
