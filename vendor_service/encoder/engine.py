"""The engine: a model in this process, and the texts that it encoded before."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from typing_extensions import override

from shared.embeddings import Kind
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.batches import Encoded
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.encoder import Encoder
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation, Took
from vendor_service.encoder.queries import Prepared, PreparedText, Query, Vectors
from vendor_service.errors import APIError

_CANARY = ""  # the engine's own account, which takes its turn like any other
_OVERHEAD = 400  # bytes of Python's own for a text in memory, about


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
        self.batcher = Batcher(model.replicas, model.replicas[0].buckets, observer, yields=on_processors)

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
        self.batcher.start()

    @override
    def close(self) -> None:
        super().close()
        self.batcher.close()
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
