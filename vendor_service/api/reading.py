"""From a request's body to its queries: JSON or a form, read no further than the limits allow."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from shared.embeddings import EmbedOptions, EmbedRequest, Encoding, Input, Limits
from vendor_service.api import multipart
from vendor_service.api.body import receiver_of
from vendor_service.api.fair_lock import FairLock
from vendor_service.api.json_body import JsonBody, LongStrings, ReadJson
from vendor_service.api.json_shape import Shape
from vendor_service.api.multipart import Form, FormBody
from vendor_service.api.parsing import JSON, media_type, parse
from vendor_service.embed.capacity import Reservation
from vendor_service.embed.queries import Queries
from vendor_service.encoder.queries import ImageQuery, Query, TextQuery

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
    """Reads the bodies of all requests for embeddings, each within `limits`.

    What is large is parsed beside the event loop, in steps of a few milliseconds, one at a time: parsers hold
    the interpreter, and several of them at once would keep everybody else from it. Accounts take turns.
    """

    def __init__(self, limits: Limits, max_text_characters: int) -> None:
        self.limits = limits
        self._longest_text = max_text_characters
        self._reading = FairLock()

    async def read_queries(self, request: Request, reservation: Reservation) -> tuple[Queries, Encoding]:
        """Read `POST /embed`, and in which encoding a JSON answer is to be.

        Raises:
            APIError: the body is too large, too slow, of another media type, or breaks the contract.
        """
        if media_type(request, JSON, multipart.MEDIA_TYPE) == JSON:
            return await self.read_json(request, reservation, EmbedRequest, "inputs", _of_json)
        content_type = request.headers["content-type"]
        form = FormBody(content_type, self.limits.max_inputs, self._longest_text)
        return await self._read(request, reservation, form, _of_form)

    async def read_json(
        self,
        request: Request,
        reservation: Reservation,
        model: type[BaseModel],
        items: str,
        make: Callable[[ReadJson], Made],
    ) -> Made:
        """Read a JSON body with the fields of `model`, whose field `items` has the inputs.

        What `make` makes of it is made where the body is parsed.

        Raises:
            APIError: as of `read_queries`, and by `make`.
        """
        media_type(request, JSON)
        shape = Shape(frozenset(model.model_fields), items, self.limits.max_inputs)
        return await self._read(request, reservation, JsonBody(shape, self._longest_text), make)

    async def _read(
        self, request: Request, reservation: Reservation, parser: Parser[Read], make: Callable[[Read], Made]
    ) -> Made:
        receiver_of(request).allow(self.limits.max_request_bytes, reservation.seconds_left)
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


def of_input(given: Input, long: LongStrings) -> Query:
    """The query that an input is."""
    if given.image is not None:
        return ImageQuery(long.take(given.image))
    assert given.text is not None
    return TextQuery(long.take(given.text))


def _of_json(read: ReadJson) -> tuple[Queries, Encoding]:
    request = parse(EmbedRequest, read.rest)
    items = [of_input(each, read.long) for each in request.inputs]
    return _queries(items, request, read.body_hash), request.encoding


def _of_form(form: Form) -> tuple[Queries, Encoding]:
    options = parse(EmbedOptions, dict(form.fields))
    return _queries(form.items, options, form.body_hash), options.encoding


def _queries(items: list[Query], options: EmbedOptions, body_hash: str) -> Queries:
    return Queries(items, body_hash, options.model, skip_bad=options.on_error == "skip")


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
