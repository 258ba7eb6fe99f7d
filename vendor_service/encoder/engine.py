"""The engine: a model in this process, from what a caller sent to rows of a matrix."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import torch

from shared.embeddings import Kind
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.encoder import Prepared
from vendor_service.encoder.lanes import Encoded, Vectors
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preparation import Preparation
from vendor_service.encoder.queries import Query
from vendor_service.encoder.text_cache import TextCache
from vendor_service.errors import Refusal

_CANARY = ""  # the engine's own account, which takes its turn like any other


class Engine:
    """Encodes what was prepared in batches across callers; texts that it encoded before, from memory.

    It is an `Encoder`. `text_cache_bytes` is what the vectors of texts encoded before may take.
    """

    def __init__(
        self, model: ClipModel, preparation: Preparation, text_cache_bytes: int, observer: Observer
    ) -> None:
        self.model = model
        self.facts = model.facts
        self._preparation = preparation
        self._known = TextCache(text_cache_bytes)
        self._observer = observer
        self.batcher = Batcher(model.replicas, model.replicas[0].buckets, observer)

    @property
    def deaths(self) -> int:
        """How often the worker of a device died."""
        return self.batcher.deaths

    def start(self) -> None:
        """Start the workers of the devices."""
        self.batcher.start()

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self._preparation.close()
        self.batcher.close()

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind no batch has taken yet."""
        return self.batcher.waiting(kind)

    async def prepare(self, queries: Sequence[Query]) -> list[Prepared | Refusal]:
        """Check and decode every query; where one cannot be served, why not stands in its place."""
        return await self._preparation.prepare(queries)

    async def encode(self, account: str, prepared: Sequence[Prepared]) -> Encoded:
        """Unit vectors of the inputs, in their order: float32 of shape (inputs, dimensions).

        Raises:
            Refusal: no worker lives (`not_ready`), or the vendor stops (`shutting_down`).
        """
        images = [item for item in prepared if isinstance(item, torch.Tensor)]
        texts = [item for item in prepared if isinstance(item, str)]
        known, unknown = self._look_up(account, texts)
        lanes: list[tuple[Kind, Sequence[Prepared]]] = [("image", images), ("text", unknown)]
        answers = await self._answers(account, {kind: items for kind, items in lanes if items})
        if "text" in answers:
            known |= zip(unknown, answers["text"].rows, strict=True)
            for text in unknown:
                self._known.put(account, text, known[text])
        pixels = iter(answers["image"].rows if images else ())
        rows = [known[item] if isinstance(item, str) else next(pixels) for item in prepared]
        waited = max((each.waited for each in answers.values()), default=0.0)
        ran = max((each.ran for each in answers.values()), default=0.0)
        return Encoded(np.stack(rows), waited, ran)

    async def check(self) -> None:
        """Send a small image and a text through the real lanes; raises whatever is wrong with them."""
        if self.batcher.dead:
            raise RuntimeError(f"{self.batcher.dead} workers are dead")
        image, text = self._preparation.canaries()
        await self._answers(_CANARY, {"image": [image], "text": [text]})

    async def _answers(self, account: str, lanes: Mapping[Kind, Sequence[Prepared]]) -> dict[Kind, Encoded]:
        futures: list[Future[Encoded]] = []
        try:
            for kind, items in lanes.items():
                futures.append(self.batcher.submit(account, kind, items))
            return dict(zip(lanes, await asyncio.gather(*map(asyncio.wrap_future, futures)), strict=True))
        finally:
            for each in futures:
                each.cancel()  # of use where another one failed, or the caller has gone

    def _look_up(self, account: str, texts: Sequence[str]) -> tuple[dict[str, Vectors], list[str]]:
        """The rows of the texts that are known, and the other texts, each once."""
        found = {text: self._known.get(account, text) for text in texts}
        known = {text: row for text, row in found.items() if row is not None}
        if texts:
            self._observer.looked_up(hits=len(known), misses=len(found) - len(known))
        return known, [text for text, row in found.items() if row is None]
