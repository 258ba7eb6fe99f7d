"""A student that asks the vendor where it is not sure."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from client.data.images import UnreadableImage
from client.serving.answers import Answer
from client.serving.ask_queue import AskQueue
from client.serving.asking import image_query
from client.serving.classify import Answerer, ImageFile, OnError
from client.serving.selection import ShareOfTraffic, sure_of
from client.vendors.query import Query
from shared.errors import APIError
from shared.http.images import from_base64


class DeferringAnswerer:
    """The student, with the vendor where the selection says so and the vendor answers in time.

    Args:
        student: answers about all images.
        selection: says which of them to ask about.
        queue: asks the vendor.
        seconds: how long a caller waits for the vendor, and for what it is sent to be made.
    """

    def __init__(
        self, student: Answerer, selection: ShareOfTraffic, queue: AskQueue, *, seconds: float
    ) -> None:
        self._student = student
        self._selection = selection
        self._queue = queue
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
        chosen = self._selection.choose(sure_of([each for _, each in read]))
        unsure = [pair for pair, is_chosen in zip(read, chosen, strict=True) if is_chosen]
        if not unsure:
            return answers
        now = asyncio.get_running_loop().time
        ends = now() + self._seconds
        queries = await self._queries([images[place] for place, _ in unsure], ends)
        asked = [(*pair, query) for pair, query in zip(unsure, queries, strict=False) if query is not None]
        if not asked:
            return answers
        said = await self._queue.ask([query for _, _, query in asked], seconds=max(0.0, ends - now()))
        for (place, own, _), vendor in zip(asked, said, strict=True):
            if vendor is not None:
                answers[place] = own.with_vendor(vendor)
        return answers

    async def _queries(self, images: Sequence[ImageFile], ends: float) -> list[Query | None]:
        """The queries about images, as far as they are made in time; `None` of one that cannot be read again.

        An image that is not sent as it is, is decoded whole for it: one at a time, whoever asks. No other is
        begun when half of the time is over, or when the queue has no room.
        """
        loop = asyncio.get_running_loop()
        half, size = (loop.time() + ends) / 2, 0
        queries: list[Query | None] = []
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                for image in images:
                    if size >= self._queue.room or loop.time() > half:
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
