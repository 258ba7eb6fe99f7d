"""A request's body: how much of it is taken, for how long, and what is read from it."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.types import Message, Receive, Scope

from shared.errors import APIError, ErrorCode
from shared.fairness import FairTurns
from shared.http.capacity import Reservation
from shared.http.errors import LONGEST_NAME, invalid

JSON = "application/json"

# The bounds of a route that asked for no others: enough for a few numbers, and for requests that are refused.
_UNASKED_BYTES = 65_536
_UNASKED_SECONDS = 10.0
# Where a route allows more time, this much must come in each of these spans of it.
_STEP_BYTES = 16_384
_STEP_SECONDS = 20.0
# Of a body that `read_model` reads.
_SMALL_BYTES = 4096
_SMALL_SECONDS = 10.0
# A large body is parsed in blocks of this size; one of up to `_AT_ONCE_BYTES` is parsed on the event loop.
_BLOCK_BYTES = 256 * 1024
_AT_ONCE_BYTES = 64 * 1024
# How long a reader of large bodies rests, as a multiple of the time of its work, and at most, in seconds.
_REST = 2
_LONGEST_REST = 0.05
# The character NUL, as JSON has it: behind its own backslash, not behind one that stands for a backslash.
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

Body = TypeVar("Body", bound=BaseModel)
Read = TypeVar("Read")
Read_co = TypeVar("Read_co", covariant=True)
Made = TypeVar("Made")


class BodyReceiver:
    """Receives the body of one request: bounds its bytes, its time, and how slowly it may come.

    A stranger gets the smallest bounds. Routes that know their caller may `allow` more.
    """

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._declared = _declared_bytes(scope)
        self._most_bytes = _UNASKED_BYTES
        self._size = 0
        self._step_size = 0
        self._end = self._step_end = asyncio.get_running_loop().time() + _UNASKED_SECONDS
        self._whole = False
        self.late = False

    def allow(self, most_bytes: int, seconds: float) -> None:
        """Take up to `most_bytes`, for up to `seconds` from now."""
        now = asyncio.get_running_loop().time()
        self._most_bytes = most_bytes
        self._end, self._step_end = now + seconds, now + _STEP_SECONDS

    async def receive(self) -> Message:
        """The next piece of the body, as ASGI has it.

        Raises:
            APIError: `request_too_large` or `deadline_exceeded`.
        """
        if self._whole:
            return await self._receive()
        self._check_size(self._declared)
        try:
            async with asyncio.timeout_at(min(self._end, self._step_end)):
                message = await self._receive()
        except TimeoutError as error:
            self.late = True
            what = "the request's body did not come in time; send it at once"
            raise APIError(ErrorCode.DEADLINE_EXCEEDED, what, retry_after=1) from error
        if message["type"] == "http.request":
            self._take(len(message.get("body", b"")))
            self._whole = not message.get("more_body", False)
        return message

    def _take(self, count: int) -> None:
        self._size += count
        self._check_size(self._size)
        if self._size - self._step_size >= _STEP_BYTES:
            self._step_size = self._size
            self._step_end = asyncio.get_running_loop().time() + _STEP_SECONDS

    def _check_size(self, size: int) -> None:
        if size > self._most_bytes:
            message = f"the body of this request may have {self._most_bytes} bytes"
            raise APIError(ErrorCode.REQUEST_TOO_LARGE, message)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else 0
    return 0


def receiver_of(request: Request) -> BodyReceiver:
    """The receiver of a request."""
    receiver: BodyReceiver = request.state.receiver
    return receiver


def until_sent(request: Request) -> ExitStack:
    """A stack that is left when the answer has been sent, or when its caller has gone."""
    stack: ExitStack = request.state.until_sent
    return stack


async def disconnected(request: Request) -> None:
    """Return when the caller has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Parser(Protocol[Read_co]):
    """Takes a body block by block."""

    def feed(self, block: bytes) -> None:
        """Take the next bytes, or raise an `APIError`."""

    def finish(self) -> Read_co:
        """The whole, or an `APIError`."""


class BodyReader:
    """Reads the bodies of all requests, each of up to `max_bytes`.

    Large bodies are parsed beside the event loop, in steps of a few milliseconds, one at a time: parsers hold
    the interpreter, and several of them at once would keep everybody else from it. Accounts take turns.
    What bodies have beyond `unhurried_bytes` is read block by block, whosever it is, and while others are
    here with rests that are longer than the work. A parser's thread cannot have less priority, since others
    wait for the interpreter that it holds, and who sends large bodies would keep a processor busy.
    """

    def __init__(self, max_bytes: int, unhurried_bytes: float = math.inf) -> None:
        self._max_bytes = max_bytes
        self._unhurried_bytes = unhurried_bytes
        self._turns = FairTurns()
        self._unhurried = FairTurns()

    async def read(
        self, request: Request, reservation: Reservation, parser: Parser[Read], make: Callable[[Read], Made]
    ) -> Made:
        """Read a body, and `make` something of it where it is parsed.

        Raises:
            APIError: the body is too large or too slow; or as of the parser, and of `make`.
        """
        receiver_of(request).allow(self._max_bytes, reservation.seconds_left)
        size = 0
        async with reservation.within_deadline():
            async for block in blocks(request, _BLOCK_BYTES, reservation.take_bytes):
                size += len(block)
                await self._do(reservation, size, parser.feed, block)
            return await self._do(reservation, size, lambda: make(parser.finish()))

    async def _do(
        self, reservation: Reservation, size: int, work: Callable[..., Made], *given: bytes
    ) -> Made:
        if size <= _AT_ONCE_BYTES:
            return work(*given)
        if size <= self._unhurried_bytes:
            async with self._turns.turn(reservation.account):
                return await asyncio.to_thread(work, *given)
        async with self._unhurried.turn(reservation.account):
            began = time.perf_counter()
            async with self._turns.turn(reservation.account):
                done = await asyncio.to_thread(work, *given)
            if reservation.has_company:
                await asyncio.sleep(min(_LONGEST_REST, _REST * (time.perf_counter() - began)))
            return done


async def blocks(
    request: Request, size: int, count: Callable[[int], None] = lambda _: None
) -> AsyncIterator[bytes]:
    """The body in blocks of about `size` bytes; `count` is told of bytes before they are kept."""
    chunks: list[bytes] = []
    kept = 0
    async for chunk in request.stream():
        count(len(chunk))
        chunks.append(chunk)
        kept += len(chunk)
        if kept >= size:
            yield b"".join(chunks)
            chunks, kept = [], 0
    yield b"".join(chunks)


def media_type(request: Request, *allowed: str) -> str:
    """The media type that a body declares, one of those allowed; JSON if it declares none.

    Raises:
        APIError: `unsupported_media_type`.
    """
    sent = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if sent not in allowed:
        message = f"send {' or '.join(allowed)}, not {sent[:LONGEST_NAME]}"
        raise APIError(ErrorCode.UNSUPPORTED_MEDIA_TYPE, message, param="content-type")
    return sent


async def read_model(request: Request, model: type[Body]) -> Body:
    """Read a small JSON body of a caller who is known.

    Raises:
        APIError: `unsupported_media_type`, `request_too_large`, `deadline_exceeded` or `invalid_request`.
    """
    media_type(request, JSON)
    receiver_of(request).allow(_SMALL_BYTES, _SMALL_SECONDS)
    return parse_small(model, await request.body())


def parse(model: type[Body], content: bytes | bytearray | dict[str, Any]) -> Body:
    """Validate JSON, or the fields of a form.

    Raises:
        APIError: `invalid_request`, with the first thing that is wrong.
    """
    try:
        return (
            model.model_validate(content) if isinstance(content, dict) else model.model_validate_json(content)
        )
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise invalid(problem["msg"], *problem["loc"]) from error


def parse_small(model: type[Body], content: bytes) -> Body:
    """Validate JSON whose texts may go into the books: PostgreSQL takes none with the character NUL.

    Raises:
        APIError: `invalid_request`, with the first thing that is wrong.
    """
    parsed = parse(model, content)
    if _NUL.search(content):
        raise invalid("no text may have the character NUL")
    return parsed
