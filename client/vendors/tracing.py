"""OpenTelemetry traces: a span for each purchase and for each of its batches, where an endpoint is named."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from client.errors import UsageError
from client.vendors.heads import SignedHead
from client.vendors.model_cards import PinnedCard
from client.vendors.query import Query
from client.vendors.vendor import EmbedResult, Vendor
from shared.billing import Quote
from shared.embeddings import ModelCard
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
        """A purchase of so many queries, known ones included; the batches sent meanwhile belong to it."""
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


class TracedVendor:
    """A vendor whose batches are spans; it is a `Vendor`."""

    def __init__(self, vendor: Vendor, traces: Traces) -> None:
        self.url, self.key_id = vendor.url, vendor.key_id
        self.repeats_are_free, self.states_prices = vendor.repeats_are_free, vendor.states_prices
        self._vendor = vendor
        self._traces = traces

    def model(self, name: str | None = None, *, fingerprint: str | None = None) -> ModelCard:
        """The model that will answer."""
        return self._vendor.model(name, fingerprint=fingerprint)

    def embed(
        self,
        queries: Sequence[tuple[Query, bytes]],
        *,
        model: ModelCard,
        idempotency_key: str,
        max_cost_micros: int | None = None,
        on_try: Callable[[], None] = lambda: None,
        on_push_back: Callable[[], None] = lambda: None,
        on_unsure: Callable[[], None] = lambda: None,
    ) -> EmbedResult:
        """Buy the embeddings of some queries."""
        with self._traces.batch(len(queries)):
            return self._vendor.embed(
                queries,
                model=model,
                idempotency_key=idempotency_key,
                max_cost_micros=max_cost_micros,
                on_try=on_try,
                on_push_back=on_push_back,
                on_unsure=on_unsure,
            )

    def estimate(self, *, images: int = 0, texts: int = 0, model: ModelCard | None = None) -> Quote:
        """What so many queries of a model would cost."""
        return self._vendor.estimate(images=images, texts=texts, model=model)

    def head(self, *, within: float | None = None) -> SignedHead | None:
        """The end of the account's ledger."""
        return self._vendor.head(within=within)

    def signed_card(self, name: str, *, within: float | None = None) -> PinnedCard | None:
        """What is sold under a name."""
        return self._vendor.signed_card(name, within=within)

    def stop(self) -> None:
        """Make requests that wait to be tried again give up now."""
        self._vendor.stop()
