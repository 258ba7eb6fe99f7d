"""From a request's body to what it asks: JSON or a form, read no further than the limits allow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

from starlette.requests import Request

from shared.http.body import receiver_of
from shared.http.capacity import Reservation
from shared.http.fair_lock import FairLock

# A body is taken apart in blocks of this size, the smallest bodies where they are read and others elsewhere.
_BLOCK_BYTES = 256 * 1024
_SMALL_BYTES = 64 * 1024

Read = TypeVar("Read")
Read_co = TypeVar("Read_co", covariant=True)
Made = TypeVar("Made")


class Parser(Protocol[Read_co]):
    """Takes a body block by block."""

    def feed(self, block: bytes) -> None:
        """Take the next bytes, or raise a `APIError`."""

    def finish(self) -> Read_co:
        """What was read, unless that is a `APIError`."""


class BodyReader:
    """Reads the bodies of all requests, each of up to `max_bytes`.

    What is large is parsed beside the event loop, in steps of a few milliseconds, one at a time: parsers hold
    the interpreter, and several of them at once would keep everybody else from it. Accounts take turns.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._reading = FairLock()

    async def read(
        self, request: Request, reservation: Reservation, parser: Parser[Read], make: Callable[[Read], Made]
    ) -> Made:
        """Read a body. What `make` makes of what was read is made where the body is parsed.

        Raises:
            APIError: the body is too large or too slow; or as of the parser, and of `make`.
        """
        receiver_of(request).allow(self._max_bytes, reservation.seconds_left)
        size = 0
        async with reservation.within_deadline():
            async for block in _blocks(request, reservation):
                size += len(block)
                await self._do(reservation.account, size, parser.feed, block)
            return await self._do(reservation.account, size, lambda: make(parser.finish()))

    async def _do(self, account: str, size: int, work: Callable[..., Made], *given: bytes) -> Made:
        if size <= _SMALL_BYTES:
            return work(*given)
        async with self._reading.acquired(account):
            return await asyncio.to_thread(work, *given)


async def _blocks(request: Request, reservation: Reservation) -> AsyncIterator[bytes]:
    """The body in blocks, each counted before it is kept."""
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        reservation.take_bytes(len(chunk))
        chunks.append(chunk)
        size += len(chunk)
        if size >= _BLOCK_BYTES:
            yield b"".join(chunks)
            chunks, size = [], 0
    yield b"".join(chunks)
