"""The one way in: of no body more is taken, nor for longer, than the route that serves its request allows."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import APIError, ErrorCode

# What a route gets that did not ask for more: enough for a few numbers, and for whatever is refused anyway.
_UNASKED_BYTES = 65_536
_UNASKED_SECONDS = 10.0
# Where a route allows more time, this much must come in each of these spans of it.
_STEP_BYTES = 16_384
_STEP_SECONDS = 20.0

_LONGEST_URL = 8192  # bytes of path and query string
_MOST_PARAMETERS = 64
_LONGEST_COOKIES = 4096  # bytes; of a request with more, none is read
# An answer is handed on in pieces of this size, the next one when most of the last is on its way.
_PIECE_BYTES = 65_536


class BodyReceiver:
    """The body of one request as it comes in: a bound on its bytes, on its time, and on how slowly it comes.

    A stranger gets the smallest bounds. Only who knows its caller may `allow` more.
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
        """Take up to so many bytes, for up to so long from now."""
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


class BodyGate:
    """A layer of the application in front of all its routes, those that do not exist included.

    It bounds what comes in by a `BodyReceiver`, refuses endless URLs, keeps cookies from the framework (see
    `cookie_of`), and sends answers in pieces, so that little of an answer that nobody reads is kept outside
    the application's own count. `refuse` renders an error.
    """

    def __init__(self, app: ASGIApp, refuse: Callable[[Request, APIError], Response]) -> None:
        self._app = app
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        receiver = BodyReceiver(scope, receive)

        async def send_in_pieces(message: Message) -> None:
            if receiver.late and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            for piece in _pieces(message):
                await send(piece)

        with ExitStack() as until_sent:
            state = scope.setdefault("state", {})
            state["receiver"], state["until_sent"] = receiver, until_sent
            state["cookies"] = _take_cookies(scope)
            app: ASGIApp = self._app
            error = _error_of_url(scope)
            if error is not None:
                app = self._refuse(Request(scope), error)
            await app(scope, receiver.receive, send_in_pieces)


def receiver_of(request: Request) -> BodyReceiver:
    """The receiver of a request."""
    receiver: BodyReceiver = request.state.receiver
    return receiver


def until_sent(request: Request) -> ExitStack:
    """What is entered here is left when the answer has been sent, or nobody is there any more to take it."""
    stack: ExitStack = request.state.until_sent
    return stack


def cookie_of(request: Request, name: str) -> str | None:
    """What a cookie says, as it is written; `None` if there is none, or if a request's are too long together.

    The framework gets none: for every route it would undo what is quoted in them, and until Python 3.11.10
    that takes seconds for what a stranger may put into a head (CVE-2024-7592).
    """
    for each in request.state.cookies.split(";"):
        found, _, value = each.partition("=")
        if found.strip() == name:
            return str(value.strip())
    return None


async def disconnected(request: Request) -> None:
    """Return when the caller has hung up; the body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value) if value.isdigit() and len(value) < 20 else 0
    return 0


def _take_cookies(scope: Scope) -> str:
    """Take the cookies out of a head."""
    found = b";".join(value for name, value in scope["headers"] if name == b"cookie")
    scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"cookie"]
    return found.decode("latin-1") if len(found) <= _LONGEST_COOKIES else ""


def _error_of_url(scope: Scope) -> APIError | None:
    query = scope["query_string"]
    if len(scope.get("raw_path") or scope["path"].encode()) + len(query) > _LONGEST_URL:
        message = f"the path and the query string may have {_LONGEST_URL} bytes"
    elif query.count(b"&") >= _MOST_PARAMETERS:
        message = f"the query string may have {_MOST_PARAMETERS} parameters"
    elif "\0" in scope["path"] or b"%00" in query:  # PostgreSQL takes no text with it
        message = "a URL may not have the character NUL"
    else:
        return None
    return APIError(ErrorCode.INVALID_REQUEST, message, param="url")


def _pieces(message: Message) -> Iterator[Message]:
    body = message.get("body", b"")
    if len(body) <= _PIECE_BYTES:
        yield message
        return
    for start in range(0, len(body), _PIECE_BYTES):
        end = start + _PIECE_BYTES
        more = end < len(body) or message.get("more_body", False)
        yield {**message, "body": body[start:end], "more_body": more}
