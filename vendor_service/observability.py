"""Seeing what happens: an id and a log line for every request, as text or JSON, never a key or a payload.

Whatever a line is made of, strangers' paths and errors' texts included, it stays one line without control
characters and without secrets (see `redaction`).
"""

import json
import logging
import re
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import WatchedFileHandler
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vendor_service.billing import billing_log
from vendor_service.embed.timing import Step, Timing
from vendor_service.errors import OperatorError
from vendor_service.metrics import Metrics
from vendor_service.redaction import escaped, masked
from vendor_service.tracing import Traces

_log = logging.getLogger(__name__)

_PROBES = ("/livez", "/readyz", "/metrics")
_SERVERS_FAULT = 500
_CALLER_GONE = 499  # nobody is sent this: it is what nginx logs for a caller that hung up
_LONGEST_PATH = 512  # characters of a path that are logged; no path of this vendor is as long
_NOT_PLAIN = re.compile(r'[\s"=]')


class RequestScope:
    """The outermost layer of the application: names the request, logs and counts it, survives what it raises.

    `on_crash` makes the answer to an unexpected exception; `traces` is where spans go, if anywhere.
    """

    def __init__(
        self, app: ASGIApp, on_crash: Callable[[Request], Response], metrics: Metrics, traces: Traces | None
    ) -> None:
        self._app = app
        self._traces = traces
        self._on_crash = on_crash
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI event stream."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
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
            if self._traces is not None:
                self._trace(self._traces, scope, status, began)

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

    def _trace(self, traces: Traces, scope: Scope, status: int, began: int) -> None:
        route, method, state = getattr(scope.get("route"), "path", None), scope["method"], scope["state"]
        if route is None or route in _PROBES:
            return
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "tuition.request_id": state["request_id"],
        }
        if "error_code" in state:
            attributes["error.type"] = str(state["error_code"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        timing: Timing = state.get("timing") or Timing()
        request = Step(f"{method} {route}", began, time.time_ns())
        traces.add(request, headers, attributes, timing.steps, failed=status >= _SERVERS_FAULT)


class TextFormatter(logging.Formatter):
    """A line for people: time, level, message, then `name=value` fields; an exception follows, indented.

    A value with a space, a quote or an equals sign is quoted, so that none looks like another field.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Render the record, each line of an exception behind two spaces and a bar."""
        # The message is made safe before it meets the exception, whose lines are to stay lines.
        fields = "".join(
            f" {_plain(name)}={_plain(value)}" for name, value in getattr(record, "fields", {}).items()
        )
        record.message, record.asctime = record.getMessage(), self.formatTime(record)
        lines = [_safe(self.formatMessage(record) + fields)]
        if record.exc_info:
            lines += [f"  | {_safe(line)}" for line in self.formatException(record.exc_info).split("\n")]
        if record.stack_info:
            lines += [f"  | {_safe(line)}" for line in record.stack_info.split("\n")]
        return "\n".join(lines)


class JsonFormatter(logging.Formatter):
    """A line for programs: one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Render the record and its fields."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # JSON writes all that is not ASCII, and of ASCII all control characters but DEL, as codes.
        return json.dumps(_without_secrets(line), default=str).replace("\x7f", "\\u007f")


def _safe(text: str) -> str:
    return escaped(masked(text))


def _plain(value: object) -> str:
    text = masked(str(value))
    return json.dumps(text, ensure_ascii=False) if _NOT_PLAIN.search(text) else text


def _without_secrets(value: Any) -> Any:  # noqa: ANN401 - whatever is logged
    if isinstance(value, dict):
        return {masked(str(name)): _without_secrets(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return value if value is None or isinstance(value, bool | int | float) else masked(str(value))


def configure_logging(*, as_json: bool) -> None:
    """Log this process to standard error: ours from INFO, everybody else's from WARNING."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    logging.captureWarnings(True)
    root.setLevel(logging.WARNING)
    logging.getLogger("vendor_service").setLevel(logging.INFO)


@contextmanager
def open_billing_log(path: Path) -> Iterator[None]:
    """Append the billing log to a file, one JSON object a line; another program may rotate the file.

    Raises:
        OperatorError: the file cannot be opened.
    """
    try:
        handler = WatchedFileHandler(path, encoding="utf-8")
    except OSError as error:
        raise OperatorError(f"the billing log cannot be written: {error}") from error
    handler.setFormatter(JsonFormatter())
    log = logging.getLogger(billing_log.LOGGER)
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.NOTSET)
        log.propagate = True
        handler.close()
