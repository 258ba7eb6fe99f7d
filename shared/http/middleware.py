"""The outermost layer of an application, in front of all its routes, those that do not exist included."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import APIError, ErrorCode
from shared.http.body import BodyReceiver
from shared.http.errors import refused
from shared.http.metrics import RequestMetrics

_log = logging.getLogger(__name__)

Trace = Callable[[Scope, int, int], str | None]
NoteRefusal = Callable[[Scope, str], None]

_CALLER_GONE = 499  # nobody is sent this: it is what nginx logs for a caller that hung up
_LONGEST_PATH = 512  # characters of a path that are logged; no path of these servers is as long
_LONGEST_URL = 8192  # bytes of path and query string
_MOST_PARAMETERS = 64
_LONGEST_COOKIES = 4096  # bytes; of a request with more, none is read
# An answer is handed on in pieces of this size, the next one when most of the last is on its way.
_PIECE_BYTES = 65_536
# Programs ask for these every few seconds; a line says so only where that goes wrong.
_PROBES = frozenset({"/metrics", "/livez", "/readyz"})


class RequestGate:
    """Names each request, bounds what comes in, logs and counts it, and survives what it raises.

    The body comes in by a `BodyReceiver`; endless URLs are refused; cookies are kept from the framework (see
    `cookie_of`); answers go out in pieces, so that an answer that nobody reads takes little memory outside of
    the application's own count. A log line has an id, and never a key or a payload.

    Args:
        app: the application behind.
        crash_message: the answer to an unexpected exception; it tells nothing but the id to ask about.
        metrics: counts requests.
        trace: is told the scope, the status and the beginning (nanoseconds) of a finished request, and says
            the id of its trace.
        note_refusal: is told the scope and the error code of a refused one.
        refusal: why a request is refused before any route sees it; `None` if it is not.
    """

    def __init__(
        self,
        app: ASGIApp,
        crash_message: str,
        metrics: RequestMetrics,
        trace: Trace | None = None,
        note_refusal: NoteRefusal | None = None,
        refusal: Callable[[Scope], APIError | None] = lambda _: None,
    ) -> None:
        self._app = app
        self._crash_message = crash_message
        self._metrics = metrics
        self._trace = trace
        self._note_refusal = note_refusal
        self._refusal = refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        receiver = BodyReceiver(scope, receive)
        began, started, status = time.time_ns(), time.perf_counter(), 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if receiver.late else []
                named = (b"x-request-id", request_id.encode())
                message["headers"] = [*message["headers"], *closing, named]
            for piece in _pieces(message):
                await send(piece)

        self._metrics.in_flight.inc()
        try:
            with ExitStack() as until_sent:
                scope.setdefault("state", {}).update(
                    request_id=request_id,
                    receiver=receiver,
                    until_sent=until_sent,
                    cookies=_take_cookies(scope),
                )
                error = _error_of_url(scope) or self._refusal(scope)
                app = self._app if error is None else refused(Request(scope), error)
                await app(scope, receiver.receive, send_on)
            code = scope["state"].get("error_code")
            if code is not None and self._note_refusal is not None:
                self._note_refusal(scope, code)
        except ClientDisconnect:
            status = _CALLER_GONE
        except Exception:
            _log.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if status == 0:
                crash = APIError(ErrorCode.INTERNAL_ERROR, self._crash_message)
                await refused(Request(scope), crash)(scope, receive, send_on)
        finally:
            seconds = time.perf_counter() - started
            self._metrics.in_flight.dec()
            if self._trace is not None and (trace_id := self._trace(scope, status, began)) is not None:
                scope["state"]["trace_id"] = trace_id
            self._conclude(scope, status, seconds)

    def _conclude(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        code = state.get("error_code")
        # The route as it is declared, and the methods that it has: a path that somebody made up must not
        # become a series of its own, nor a method.
        route = getattr(scope.get("route"), "path", "none")
        invented = route == "none" or code == ErrorCode.METHOD_NOT_ALLOWED
        method = "any" if invented else scope["method"]
        self._metrics.answered(method, route, status, seconds, state)
        if code is not None:
            self._metrics.refusals.labels(code).inc()
        fields = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
        }
        known = {"code": code, "account_id": state.get("account_id"), "key_id": state.get("key_id")}
        fields |= {name: value for name, value in known.items() if value is not None}
        level = logging.DEBUG if status == 200 and scope["path"] in _PROBES else logging.INFO
        _log.log(level, "request", extra={"fields": fields})


def new_request_id() -> str:
    """A new id: `req_` and, in 32 hexadecimal digits, a UUID of version 7 (RFC 9562, section 5.7).

    It begins with the time, so that requests which follow each other are neighbours in a database's indexes.
    Among ten million random ids each new one would be on a page of its own, to be read and written.
    """
    milliseconds = time.time_ns() // 1_000_000
    bits = milliseconds << 80 | 7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return f"req_{bits:032x}"


def cookie_of(request: Request, name: str) -> str | None:
    """The value of a cookie as it is written; `None` if there is none, or if all are too long together.

    The framework gets none: for every route it would undo what is quoted in them, and until Python 3.11.10
    that takes seconds for what a stranger may put into a head (CVE-2024-7592). Only blanks are taken off a
    name. Any other character makes it another name to browsers, which then let every host write it, however
    it would be protected by its prefix `__Host-`.
    """
    for each in request.state.cookies.split(";"):
        found, _, value = each.partition("=")
        if found.strip(" \t") == name:
            return str(value.strip(" \t"))
    return None


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
