"""The engine: one model that is ready to serve, from what a caller sent to rows of a matrix."""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

from shared.embeddings import Kind
from shared.errors import ErrorCode
from vendor_service.encoder.batcher import Batcher, Encoded
from vendor_service.encoder.clip import ClipModel
from vendor_service.encoder.images import ImageLimits, decode_image
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.errors import Refusal

# What the model is given: the pixels of an image, or a text.
Prepared = torch.Tensor | str

# Large enough to keep a device busy, small enough that nobody waits long behind it.
_MAX_BATCH = {"cpu": 32, "cuda": 256}


class Engine:
    """Checks and decodes inputs in a pool of threads, and encodes them in batches across callers.

    `max_waiting` bounds the inputs that wait for the model, `max_text_characters` the length of a text.
    """

    def __init__(
        self,
        model: ClipModel,
        image_limits: ImageLimits,
        observer: Observer,
        *,
        max_text_characters: int,
        max_waiting: int,
    ) -> None:
        self.model = model
        self._image_limits = image_limits
        self._observer = observer
        self._max_text_characters = max_text_characters
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decoder")
        self._batcher: Batcher[torch.Tensor] = Batcher(
            model.encode_images,
            model.encode_texts,
            max_batch=_MAX_BATCH.get(model.device.type, 32),
            max_waiting=max_waiting,
            observer=observer,
        )

    def start(self) -> None:
        """Start the worker thread of the device."""
        self._batcher.start()

    def close(self) -> None:
        """Answer what waits, then end the threads."""
        self._decoders.shutdown()
        self._batcher.close()

    def waiting(self, kind: Kind) -> int:
        """How many queries of this kind wait for the model."""
        return self._batcher.waiting(kind)

    async def prepare(self, queries: Sequence[Query]) -> list[Prepared | Refusal]:
        """Check and decode every query; where one cannot be served, why not stands in its place."""
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._decoders, self._prepare, each) for each in queries]
        return await asyncio.gather(*jobs)

    async def encode(self, prepared: Sequence[Prepared]) -> Encoded:
        """Unit vectors of the inputs, in their order: float32 of shape (inputs, dimensions).

        Raises:
            Refusal: too much is waiting (`overloaded`), or the vendor stops (`shutting_down`).
        """
        images = [(row, item) for row, item in enumerate(prepared) if isinstance(item, torch.Tensor)]
        texts = [(row, item) for row, item in enumerate(prepared) if isinstance(item, str)]
        futures = self._batcher.submit([item for _, item in images], [item for _, item in texts])
        answers = await asyncio.gather(*map(asyncio.wrap_future, futures))
        rows = np.empty((len(prepared), self.model.dimensions), dtype=np.float32)
        rows[[row for row, _ in (*images, *texts)]] = np.concatenate([each.rows for each in answers])
        return Encoded(rows, max(each.waited for each in answers), max(each.ran for each in answers))

    async def check(self) -> None:
        """Send a small image and a text through the real lanes; raises whatever is wrong with them."""
        side = self.model.image_size
        pixels = self.model.preprocess(Image.new("RGB", (side, side), "white"))
        await self.encode([pixels, "a photo"])

    def _prepare(self, query: Query) -> Prepared | Refusal:
        began = time.perf_counter()
        try:
            if isinstance(query, ImageQuery):
                return self.model.preprocess(decode_image(query.file, self._image_limits))
            return self._checked(query.text)
        except Refusal as refusal:
            return refusal
        finally:
            self._observer.decoded(query.kind, time.perf_counter() - began)

    def _checked(self, text: str) -> str:
        if not text.strip():
            raise Refusal(ErrorCode.EMPTY_INPUT, "the text is empty")
        if len(text) > self._max_text_characters:
            message = f"the text is longer than {self._max_text_characters} characters"
            raise Refusal(ErrorCode.INVALID_REQUEST, message)
        if "\0" in text:
            raise Refusal(ErrorCode.INVALID_REQUEST, "the text holds a NUL character")
        return text
