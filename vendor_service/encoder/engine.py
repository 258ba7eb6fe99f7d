"""The engine: a model in this process, the workers of its devices, and the texts that it encoded before."""

import asyncio
import logging
import threading
import time
import traceback
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from typing_extensions import override

from shared.embeddings import Kind
from vendor_service.encoder.batcher import Batch, Batcher, starting_again
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation, Took
from vendor_service.encoder.queries import Encoded, Prepared, PreparedText, Query, Vectors
from vendor_service.encoder.replica import DeviceLost
from vendor_service.errors import APIError

_CANARY = ""  # the engine's own account, which takes its turn like any other
_OVERHEAD = 400  # bytes of Python's own for a text in memory, about
_PAUSE_SECONDS = 1.0  # after which a worker that died starts anew

_log = logging.getLogger(__name__)


class TextCache:
    """The rows of the texts that were asked last, in at most `max_bytes`. For one thread.

    Each account has entries of its own: how fast an answer comes must not tell what others asked.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._rows: OrderedDict[tuple[str, str], Vectors] = OrderedDict()

    def get(self, account: str, text: str) -> Vectors | None:
        """The row of shape (dimensions,), if it is known."""
        row = self._rows.get((account, text))
        if row is not None:
            self._rows.move_to_end((account, text))
        return row

    def put(self, account: str, text: str, row: Vectors) -> None:
        """Remember a row, and forget those that nobody asked after for longest."""
        if (account, text) in self._rows:
            return
        self._rows[account, text] = row.copy()  # not a view that keeps the rows of its whole batch
        self._bytes += _size(text, row)
        while self._bytes > self._max_bytes:
            (_, oldest), forgotten = self._rows.popitem(last=False)
            self._bytes -= _size(oldest, forgotten)


def _size(text: str, row: Vectors) -> int:
    return 4 * len(text) + row.nbytes + _OVERHEAD


class Device(Protocol):
    """A device that runs the model. Staging may go on beside encoding, on another thread.

    Both raise `DeviceLost` if no further batch will fare better.
    """

    def stage(self, kind: Kind, items: Sequence[Any]) -> Any:  # noqa: ANN401 - its own business
        """Bring queries into the form, and to the place, that `encode` takes them from."""

    def encode(self, kind: Kind, staged: Any) -> Vectors:  # noqa: ANN401
        """Rows of shape (queries, dimensions)."""


@dataclass(frozen=True)
class _Staged:
    """A batch, and what its device made of it or why it could not."""

    batch: Batch
    staged: Any
    error: Exception | None = None


class DeviceWorker:
    """One thread that runs batches on a device, and one that stages the next batch meanwhile.

    A batch that fails is run again caller by caller, so that a bad one harms no neighbour. Whatever else
    goes wrong kills the worker: its batches are answered 503, and after `pause_seconds` it starts anew.
    """

    def __init__(
        self, number: int, device: Device, source: Batcher, observer: Observer, pause_seconds: float
    ) -> None:
        self._device = device
        self._source = source
        self._observer = observer
        self._pause_seconds = pause_seconds
        self._held: list[Batch] = []
        self._closed = threading.Event()
        self._stager = ThreadPoolExecutor(1, thread_name_prefix=f"stager-{number}")
        self._thread = threading.Thread(target=self._live, name=f"worker-{number}", daemon=True)

    def start(self) -> None:
        """Start both threads."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which comes once the source is closed and has no batch any more."""
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
        self._source.mark_dead()
        for batch in self._held:
            batch.fail(starting_again())
        self._held = []
        self._closed.wait(self._pause_seconds)
        self._source.mark_alive()

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
        self._source.answered_at = time.monotonic()


class Engine(Encoder):
    """Encodes prepared inputs in batches across callers, and texts that it encoded before from memory.

    `text_cache_bytes` is what the vectors of those texts may take.
    """

    def __init__(
        self, model: ClipModel, preparation: Preparation | None, text_cache_bytes: int, observer: Observer
    ) -> None:
        self.model = model
        self.facts = model.facts
        self.preparation = preparation
        self._known = TextCache(text_cache_bytes)
        self._observer = observer
        on_processors = all(each.device.type == "cpu" for each in model.replicas)
        replicas = model.replicas
        buckets = replicas[0].buckets
        self.batcher = Batcher(len(replicas), buckets, observer, on_processors=on_processors)
        self._workers = [
            DeviceWorker(number, replica, self.batcher, observer, _PAUSE_SECONDS)
            for number, replica in enumerate(replicas)
        ]

    @property
    @override
    def deaths(self) -> int:
        return self.batcher.deaths

    @property
    @override
    def answered_at(self) -> float:
        return self.batcher.answered_at

    @override
    def start(self) -> None:
        super().start()
        for worker in self._workers:
            worker.start()

    @override
    def close(self) -> None:
        super().close()
        self.batcher.close()
        while self._workers:
            self._workers.pop().join()  # each of them has the model, too
        del self.model
        torch.cuda.empty_cache()  # PyTorch would keep what held its weights

    @override
    def waiting(self, kind: Kind) -> int:
        return self.batcher.waiting(kind)

    @override
    async def prepare(
        self,
        account: str,
        queries: Sequence[Query],
        *,
        background: bool = False,
        took: Took = lambda *_: None,
    ) -> list[Prepared | APIError]:
        assert self.preparation is not None
        known = partial(self._known.get, account)  # a known text is not tokenized
        with nullcontext() if background else self.batcher.expecting():
            return await self.preparation.prepare(account, queries, known, background=background, took=took)

    @override
    async def encode(
        self, account: str, prepared: Sequence[Prepared], *, background: bool = False
    ) -> Encoded:
        images = [item for item in prepared if isinstance(item, torch.Tensor)]
        texts = [item for item in prepared if isinstance(item, PreparedText)]
        known, unknown = self._look_up(account, texts)
        by_kind: list[tuple[Kind, Sequence[Prepared]]] = [("image", images), ("text", unknown)]
        wanted = {kind: items for kind, items in by_kind if items}
        answers = await self._answers(account, wanted, background=background)
        if "text" in answers:
            for each, row in zip(unknown, answers["text"].rows, strict=True):
                known[each.text] = row
                self._known.put(account, each.text, row)
        pixels = iter(answers["image"].rows if images else ())
        rows = [known[item.text] if isinstance(item, PreparedText) else next(pixels) for item in prepared]
        waited = max((each.waited for each in answers.values()), default=0.0)
        ran = max((each.ran for each in answers.values()), default=0.0)
        return Encoded(np.stack(rows), waited, ran)

    @override
    async def check(self) -> None:
        if self.batcher.dead:
            raise RuntimeError(f"{self.batcher.dead} workers are dead")
        canaries = self.model.canaries() if self.preparation is None else await self.preparation.check()
        await self._answers(_CANARY, dict(zip(("image", "text"), ([each] for each in canaries), strict=True)))

    async def _answers(
        self, account: str, by_kind: Mapping[Kind, Sequence[Prepared]], *, background: bool = False
    ) -> dict[Kind, Encoded]:
        futures: list[Future[Encoded]] = []
        try:
            for kind, items in by_kind.items():
                futures.append(self.batcher.submit(account, kind, items, background=background))
            return dict(zip(by_kind, await asyncio.gather(*map(asyncio.wrap_future, futures)), strict=True))
        finally:
            for each in futures:
                each.cancel()  # of use where another one failed, or the caller has gone

    def _look_up(
        self, account: str, texts: Sequence[PreparedText]
    ) -> tuple[dict[str, Vectors], list[PreparedText]]:
        """The rows of the texts that are known, and the other texts, each once."""
        each = {prepared.text: prepared for prepared in texts}
        found = {
            text: self._known.get(account, text) if prepared.row is None else prepared.row
            for text, prepared in each.items()
        }
        known = {text: row for text, row in found.items() if row is not None}
        if texts:
            self._observer.looked_up(hits=len(known), misses=len(found) - len(known))
        return known, [each[text] for text, row in found.items() if row is None]
