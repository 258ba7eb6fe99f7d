"""A student that asks the vendor where it is not sure."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

from client.serving.answers import Answer
from client.serving.ask_queue import AskQueue
from client.serving.asking import image_query
from client.serving.classify import Answerer, ImageFile, OnError
from client.serving.selection import CallersStreams, sure_of
from client.vendors.query import Query
from shared.errors import APIError

AsSent = Callable[[str, bytes | str], Awaitable[bytes | None]]


class DeferringAnswerer:
    """The student, with the vendor where the selection says so and the vendor answers in time.

    It never asks about what the student takes to show none of the classes: anybody can send noise.

    Args:
        student: answers about all images.
        streams: say which of a caller's images to ask about.
        queue: asks the vendor.
        may_spend: whether the vendor is asked for a caller at all.
        as_sent: makes what the vendor is sent of a caller's image; `None` where that cannot be.
        seconds: how long a caller waits for the vendor, and for what it is sent to be made.
    """

    def __init__(
        self,
        student: Answerer,
        streams: CallersStreams,
        queue: AskQueue,
        may_spend: Callable[[str], bool],
        as_sent: AsSent,
        *,
        seconds: float,
    ) -> None:
        self._student = student
        self._streams = streams
        self._queue = queue
        self._may_spend = may_spend
        self._as_sent = as_sent
        self._seconds = seconds

    async def answer(
        self, account: str, images: Sequence[ImageFile], on_error: OnError
    ) -> Sequence[Answer | APIError]:
        """An answer or a refusal of each image, in order.

        Where one that is refused fails the request, the vendor is not asked about the others.

        Raises:
            APIError: nothing can be answered.
        """
        answers = list(await self._student.answer(account, images, on_error))
        if on_error == "fail" and not all(isinstance(each, Answer) for each in answers):
            return answers
        unsure = self._unsure(account, answers)
        if not unsure:
            return answers
        now = asyncio.get_running_loop().time
        ends = now() + self._seconds
        queries = await self._queries(account, [images[place] for place, _ in unsure], ends)
        asked = [(*pair, query) for pair, query in zip(unsure, queries, strict=False) if query is not None]
        if not asked:
            return answers
        seconds = max(0.0, ends - now())
        said = await self._queue.ask([query for _, _, query in asked], account=account, seconds=seconds)
        for (place, own, _), vendor in zip(asked, said, strict=True):
            if vendor is not None:
                answers[place] = own.with_vendor(vendor)
        return answers

    def _unsure(self, account: str, answers: Sequence[Answer | APIError]) -> list[tuple[int, Answer]]:
        """The answers to ask about, with their places."""
        if not self._may_spend(account):
            return []
        known = [
            (place, each)
            for place, each in enumerate(answers)
            if isinstance(each, Answer) and not each.rejected
        ]
        chosen = self._streams.of(account).choose(sure_of([each for _, each in known]))
        return [pair for pair, is_chosen in zip(known, chosen, strict=True) if is_chosen]

    async def _queries(self, account: str, images: Sequence[ImageFile], ends: float) -> list[Query | None]:
        """The queries about images, as far as they are made in time; `None` of one that cannot be made.

        No other is begun when half of the time is over, or when the queue has no room.
        """
        loop = asyncio.get_running_loop()
        half, size = (loop.time() + ends) / 2, 0
        queries: list[Query | None] = []
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends):
                for image in images:
                    if size >= self._queue.room(account) or loop.time() > half:
                        break
                    sent = await self._as_sent(account, image.file)
                    # A name that a stranger gives is none: what is noted under it is looked for in that file.
                    query = None if sent is None else await asyncio.to_thread(image_query, sent, "an image")
                    queries.append(query)
                    size += 0 if query is None else len(query.read())
        return queries
