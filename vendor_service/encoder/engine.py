"""The engine: one model that is ready to serve, from what a caller sent to rows of a matrix."""

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.batcher import Batcher
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.images import ImageDecoder
from vendor_service.encoder.lanes import Encoded, Vectors
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.encoder.text_cache import TextCache
from vendor_service.errors import Refusal

# What the model is given: the pixels of an image, or a text.
Prepared = torch.Tensor | str

_CANARY = ""  # the engine's own account, which takes its turn like any other


@dataclass(frozen=True)
class TextLimits:
    """The longest text, in characters, and the bytes that texts encoded before may take."""

    max_characters: int
    cache_bytes: int


class Engine:
    """Checks and decodes inputs in a pool of threads, and encodes them in batches across callers."""

    def __init__(
        self, model: ClipModel, decoder: ImageDecoder, text_limits: TextLimits, observer: Observer
    ) -> None:
        self.model = model
        self._decoder = decoder
        self._max_characters = text_limits.max_characters
        self._known = TextCache(text_limits.cache_bytes)
        self._observer = observer
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decoder")
        self.batcher = Batcher(model.replicas, model.replicas[0].buckets, observer)

    def start(self) -> None:
        """Start the workers of the devices."""
        self.batcher.start()

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self._decoders.shutdown()
        self.batcher.close()

    async def prepare(self, queries: Sequence[Query]) -> list[Prepared | Refusal]:
        """Check and decode every query; where one cannot be served, why not stands in its place."""
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._decoders, self._prepare, each) for each in queries]
        return await asyncio.gather(*jobs)

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
        side = self.model.image_size
        pixels = self.model.preprocess(Image.new("RGB", (side, side), "white"))
        await self._answers(_CANARY, {"image": [pixels], "text": ["a photo"]})

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

    def _prepare(self, query: Query) -> Prepared | Refusal:
        began = time.perf_counter()
        try:
            if isinstance(query, ImageQuery):
                return self.model.preprocess(self._decoder.decode(query.file))
            return self._checked(query.text)
        except Refusal as refusal:
            return refusal
        finally:
            self._observer.decoded(query.kind, time.perf_counter() - began)

    def _checked(self, text: str) -> str:
        if not text.strip():
            raise Refusal(ErrorCode.EMPTY_INPUT, "the text is empty")
        if len(text) > self._max_characters:
            message = f"the text is longer than {self._max_characters} characters"
            raise Refusal(ErrorCode.INVALID_REQUEST, message)
        if "\0" in text:
            raise Refusal(ErrorCode.INVALID_REQUEST, "the text holds a NUL character")
        return text
