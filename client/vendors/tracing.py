"""OpenTelemetry traces: a span for each purchase and for each of its batches, where an endpoint is named."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from client.errors import UsageError
from shared.tracing import open_provider

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


def find_traces(environment: Mapping[str, str] = os.environ) -> "Traces | None":
    """Where traces go by the environment; `None` if nowhere, which costs nothing.

    Raises:
        UsageError: the libraries are missing.
    """
    try:
        provider = open_provider("tuition-client", environment)
    except ModuleNotFoundError as error:
        raise UsageError(f"{error}.") from error
    return None if provider is None else Traces(provider)


class Traces:
    """The spans of one run."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry import trace
        from opentelemetry.context import Context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tuition.client")
        self._purchase = Context()  # batches are sent from threads that know nothing of it
        self._within, self._client = trace.set_span_in_context, trace.SpanKind.CLIENT
        self._inject = TraceContextTextMapPropagator().inject

    @contextmanager
    def buying(self, queries: int) -> Iterator[None]:
        """The span of a purchase and its queries, known ones included; later batches belong to it."""
        with self._tracer.start_as_current_span("buy", attributes={"tuition.queries": queries}) as span:
            self._purchase = self._within(span)
            yield

    @contextmanager
    def batch(self, queries: int) -> Iterator[None]:
        """One request batch, its retries included."""
        with self._tracer.start_as_current_span(
            "request batch", self._purchase, self._client, attributes={"tuition.queries": queries}
        ):
            yield

    def headers(self) -> dict[str, str]:
        """The `traceparent` of what this thread is doing; nothing outside of a batch."""
        carrier: dict[str, str] = {}
        self._inject(carrier)
        return carrier

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()
