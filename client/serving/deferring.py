"""A student that asks the vendor where it is not sure."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from client.data.images import UnreadableImage
from client.deferral.answers import Answer
from client.deferral.asking import image_query
from client.deferral.selection import Selection, sure_of
from client.serving.answers import Answerer, ImageFile, OnError
from client.serving.vendor_line import VendorLine
from client.vendors.query import Query
from shared.errors import APIError
from shared.http.images import from_base64


class DeferringAnswerer:
    """The student, with the vendor where the selection says so and the vendor answers in time.

    Args:
        student: answers about all images.
        selection: says which of them to ask about.
        line: to the vendor.
        seconds: how long a caller waits for the vendor, and for what it is sent to be made.
    """

    def __init__(self, student: Answerer, selection: Selection, line: VendorLine, *, seconds: float) -> None:
        self._student = student
        self._selection = selection
        self._line = line
        self._seconds = seconds
        self._thread = ThreadPoolExecutor(1, "query")

    async def answer(
        self, account: str, images: Sequence[ImageFile], on_error: OnError
    ) -> Sequence[Answer | APIError]:
        """An answer or a refusal of each image, in order.

        Where one that is refused fails the request, the vendor is not asked about the others.

        Raises:
            APIError: nothing can be answered.
        """
        answers = list(await self._student.answer(account, images, on_error))
        read = [(place, each) for place, each in enumerate(answers) if isinstance(each, Answer)]
        if on_error == "fail" and len(read) < len(answers):
            return answers
        confidence = np.array([each.probabilities.max() for _, each in read], np.float32)
        rejected = np.array([each.rejected for _, each in read], np.bool_)
        chosen = self._selection.choose(sure_of(confidence, rejected))
        unsure = [pair for pair, is_chosen in zip(read, chosen, strict=True) if is_chosen]
        if not unsure:
            return answers
        now = asyncio.get_running_loop().time
        ends = now() + self._seconds
        queries = await self._queries([images[place] for place, _ in unsure], ends)
        asked = [(*pair, query) for pair, query in zip(unsure, queries, strict=False) if query is not None]
        if not asked:
            return answers
        said = await self._line.ask([query for _, _, query in asked], seconds=max(0.0, ends - now()))
        for (place, own, _), vendor in zip(asked, said, strict=True):
            if vendor is not None:
                answers[place] = own.with_vendor(vendor)
        return answers

    async def _queries(self, images: Sequence[ImageFile], ends: float) -> list[Query | None]:
        """The queries about images, as far as they are made in time; `None` of one that cannot be read again.

        An image that is not sent as it is, is decoded whole for it: one at a time, whoever asks. No other is
        begun when half of the time is over, or when the line has no room.
        """
        loop = asyncio.get_running_loop()
        half, size = (loop.time() + ends) / 2, 0
        queries: list[Query | None] = []
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                for image in images:
                    if size >= self._line.room or loop.time() > half:
                        break
                    query = await loop.run_in_executor(self._thread, _query, image)
                    queries.append(query)
                    size += 0 if query is None else len(query.read())
        return queries


def _query(image: ImageFile) -> Query | None:
    """The query about an image as it was sent; `None` if it cannot be read again."""
    file = image.file if isinstance(image.file, bytes) else from_base64(image.file.encode())
    try:
        # A name that a stranger gives is none: what is noted under it is looked for in the file of that name.
        return image_query(file, "an image")
    except UnreadableImage:
        return None
