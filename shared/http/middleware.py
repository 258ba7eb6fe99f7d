"""The application's outermost layer: an id and a log line for each request, never a key or a payload."""

import logging
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.metrics import RequestMetrics
from shared.http.request_ids import new_request_id

_log = logging.getLogger(__name__)

Trace = Callable[[Scope, int, int], None]

_CALLER_GONE = 499  # nobody is sent this: it is what nginx logs for a caller that hung up
_LONGEST_PATH = 512  # characters of a path that are logged; no path of these servers is as long


class RequestScope:
    """The outermost layer of the application: names the request, logs and counts it, survives what it raises.

    `on_crash` makes the answer to an unexpected exception; `trace`, if there is one, is told the scope, the
    status and the beginning (in nanoseconds) of a request that is over.
    """

    def __init__(
        self,
        app: ASGIApp,
        on_crash: Callable[[Request], Response],
        metrics: RequestMetrics,
        trace: Trace | None = None,
    ) -> None:
        self._app = app
        self._trace = trace
        self._on_crash = on_crash
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = new_request_id()
        scope.setdefault("state", {})["request_id"] = request_id
        began, started, status = time.time_ns(), time.perf_counter(), 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            status = _CALLER_GONE
        except Exception:
            _log.exception("unexpected error", extra={"fields": {"request_id": request_id}})
            if status == 0:
                await self._on_crash(Request(scope))(scope, receive, send_named)
        finally:
            self._metrics.in_flight.dec()
            self._conclude(scope, status, time.perf_counter() - started)
            if self._trace is not None:
                self._trace(scope, status, began)

    def _conclude(self, scope: Scope, status: int, seconds: float) -> None:
        state = scope["state"]
        code = state.get("error_code")
        # The route as it is declared: a path that somebody made up must not become a series of its own.
        route = getattr(scope.get("route"), "path", "none")
        self._metrics.answered(scope["method"] if route != "none" else "any", route, status, seconds, code)
        fields = {
            "request_id": state["request_id"],
            "method": scope["method"],
            "path": scope["path"][:_LONGEST_PATH],
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
        }
        known = {"code": code, "account_id": state.get("account_id"), "key_id": state.get("key_id")}
        known = {name: value for name, value in known.items() if value is not None}
        _log.info("request", extra={"fields": fields | known})
