"""Preparation: inputs checked and decoded in a pool of threads, before anything is charged for them."""

import asyncio
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from shared.errors import ErrorCode
from vendor_service.encoder.encoder import Prepared
from vendor_service.encoder.images import ImageDecoder
from vendor_service.encoder.observer import Observer
from vendor_service.encoder.preprocessing import Preprocessing
from vendor_service.encoder.queries import ImageQuery, Query
from vendor_service.errors import Refusal


class Preparation:
    """Makes of queries what the model is given. A text may have `max_characters`."""

    def __init__(
        self, preprocessing: Preprocessing, decoder: ImageDecoder, max_characters: int, observer: Observer
    ) -> None:
        self._preprocessing = preprocessing
        self._decoder = decoder
        self._max_characters = max_characters
        self._observer = observer
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="decoder")

    def close(self) -> None:
        """Finish what was begun, then end the threads."""
        self._threads.shutdown()

    async def prepare(self, queries: Sequence[Query]) -> list[Prepared | Refusal]:
        """Check and decode every query; where one cannot be served, why not stands in its place."""
        loop = asyncio.get_running_loop()
        jobs = [loop.run_in_executor(self._threads, self._prepare, each) for each in queries]
        return await asyncio.gather(*jobs)

    def canaries(self) -> tuple[Prepared, Prepared]:
        """A small image and a text, ready for the model."""
        side = self._preprocessing.image_size
        return self._preprocessing.resize(Image.new("RGB", (side, side), "white")), "a photo"

    def _prepare(self, query: Query) -> Prepared | Refusal:
        began = time.perf_counter()
        try:
            if isinstance(query, ImageQuery):
                return self._decoder.decode(query.file)
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
