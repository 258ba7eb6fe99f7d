"""The engine: a model in this process, from what a caller sent to rows of a matrix."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch

from shared.embeddings import Kind
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation, Took
from vendor_service.encoder.queries import Prepared, PreparedText, Query, Vectors
from vendor_service.encoder.queues import Encoded
from vendor_service.encoder.text_cache import TextCache
from vendor_service.errors import APIError

_CANARY = ""  # the engine's own account, which takes its turn like any other


class Engine:
    """Encodes what was prepared in batches across callers; texts that it encoded before, from memory.

    It is an `Encoder`. `text_cache_bytes` is what the vectors of texts encoded before may take. Without
    `preparation` it takes only what others have prepared.
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
    def deaths(self) -> int:
        """How often the worker of a device died."""
        return self.batcher.deaths

    @property
    def answered_at(self) -> float:
        """When a device last answered a batch, by `time.monotonic`."""
        return self.batcher.answered_at

    def start(self) -> None:
        """Start the processes that prepare, and the workers of the devices.

        Raises:
            OperatorError: the processes do not start.
        """
        if self.preparation is not None:
            self.preparation.start()
        self.batcher.start()

    def close(self) -> None:
        """Answer what waits for the model, then end the threads and processes, and let go of the model."""
        if self.preparation is not None:
            self.preparation.close()
        self.batcher.close()
        del self.model
        torch.cuda.empty_cache()  # PyTorch would keep what held its weights

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet."""
        return self.batcher.waiting(kind)

    async def prepare(
        self,
        account: str,
        queries: Sequence[Query],
        *,
        background: bool = False,
        took: Took = lambda *_: None,
    ) -> list[Prepared | APIError]:
        """Check and decode every query; where one cannot be served, why not stands in its place.

        Accounts take turns, and those of the `background` wait for all others. What waits is dropped when
        this is cancelled. A known text is not tokenized. `took` is told what each one cost.
        """
        assert self.preparation is not None
        known = partial(self._known.get, account)
        with nullcontext() if background else self.batcher.expecting():
            return await self.preparation.prepare(account, queries, known, background=background, took=took)

    async def encode(
        self, account: str, prepared: Sequence[Prepared], *, background: bool = False
    ) -> Encoded:
        """Unit vectors of the inputs, in their order: float32 of shape (inputs, dimensions).

        Those of the `background` are taken where no others wait for a device.

        Raises:
            APIError: no worker lives (`not_ready`), or the vendor stops (`shutting_down`).
        """
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

    async def check(self) -> None:
        """Send a small image and a text through the real queues; raises whatever is wrong with them."""
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
