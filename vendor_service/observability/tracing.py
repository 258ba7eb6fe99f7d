"""OpenTelemetry traces: a span for each request and for each of its steps, where an endpoint is named."""

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shared.tracing import open_provider
from vendor_service.errors import OperatorError
from vendor_service.observability.timing import Step

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


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
    """Makes spans of requests that are over; the provider's own thread sends them."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tuition.vendor")
        self._server, self._in_context = trace.SpanKind.SERVER, trace.set_span_in_context
        self._extract = TraceContextTextMapPropagator().extract
        self._failed = trace.StatusCode.ERROR

    def add(
        self,
        request: Step,
        headers: Mapping[str, str],
        attributes: Mapping[str, str | int],
        steps: Sequence[Step],
        *,
        failed: bool,
    ) -> None:
        """Tell of a request: when it was and what it was, and the same of its steps.

        It belongs to the trace that its `traceparent` names. `attributes` follow OpenTelemetry's conventions.
        """
        span = self._tracer.start_span(
            request.name,
            self._extract(headers),
            kind=self._server,
            attributes=attributes,
            start_time=request.began,
        )
        within = self._in_context(span)
        for step in steps:
            self._tracer.start_span(step.name, within, start_time=step.began).end(step.ended)
        if failed:
            span.set_status(self._failed)
        span.end(request.ended)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
