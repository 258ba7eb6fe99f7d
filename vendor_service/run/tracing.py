"""OpenTelemetry traces: a span for each request and for each of its steps, where an endpoint is named."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from starlette.types import Scope

from shared.tracing import open_provider
from vendor_service.embed.request import Timing
from vendor_service.errors import OperatorError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_PROBES = ("/livez", "/readyz", "/metrics")
_SERVERS_FAULT = 500


def find_traces(environment: Mapping[str, str] = os.environ) -> "Traces | None":
    """Where traces go by the environment; `None` if nowhere, which costs nothing.

    Raises:
        OperatorError: the libraries are missing.
    """
    try:
        provider = open_provider("tuition-vendor", environment)
    except ModuleNotFoundError as error:
        raise OperatorError(str(error)) from error
    return None if provider is None else Traces(provider)


class Traces:
    """Makes spans of finished requests; the provider's own thread sends them."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tuition.vendor")
        self._server, self._in_context = trace.SpanKind.SERVER, trace.set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract
        self._failed = trace.StatusCode.ERROR

    def add(self, scope: Scope, status: int, began: int) -> str | None:
        """Add the spans of a request that began at `began` (nanoseconds) and was answered with `status`.

        They belong to the trace that its `traceparent` names, whose id is returned if it is kept. Attributes
        follow OpenTelemetry's conventions.
        """
        route, method, state = getattr(scope.get("route"), "path", None), scope["method"], scope["state"]
        if route is None or route in _PROBES:
            return None
        attributes: dict[str, str | int] = {
            "http.request.method": method,
            "http.route": route,
            "http.response.status_code": status,
            "tuition.request_id": state["request_id"],
        }
        if "error_code" in state:
            attributes["error.type"] = str(state["error_code"])
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        span = self._tracer.start_span(
            f"{method} {route}",
            self._extract(headers),
            kind=self._server,
            attributes=attributes,
            start_time=began,
        )
        within = self._in_context(span)
        timing: Timing = state.get("timing") or Timing()
        for step in timing.steps:
            self._tracer.start_span(step.name, within, start_time=step.began).end(step.ended)
        if status >= _SERVERS_FAULT:
            span.set_status(self._failed)
        span.end(time.time_ns())
        context = span.get_span_context()
        return f"{context.trace_id:032x}" if context.trace_flags.sampled else None

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
