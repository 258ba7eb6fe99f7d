"""Prometheus metrics of requests: counters, gauges and histograms of one application, in its own registry."""

from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.openmetrics import exposition as openmetrics

from shared.errors import ErrorCode

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0)
SIZES = (1.0, 2.0, 4, 8, 16, 32, 64, 128, 256)


OPEN_METRICS = "application/openmetrics-text"
# The library has no types for it.
_open_metrics: Callable[[CollectorRegistry], bytes] = openmetrics.generate_latest


def told(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All series, and their media type: OpenMetrics, which alone has exemplars, for who accepts it."""
    if OPEN_METRICS in accept:
        return _open_metrics(registry), openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_LATEST


class RequestMetrics:
    """The series that every server has. Every method may be called from any thread.

    Args:
        labels: what requests are told apart by, beside their routes.
    """

    def __init__(self, *labels: str) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self._requests = self._counter("requests", "Requests answered.", "method", "route", "status")
        self._request_seconds = self._histogram(
            "request_seconds",
            "From the head of a request to the end of its answer.",
            SECONDS,
            "route",
            *labels,
        )
        self.in_flight = self.gauge("requests_in_flight", "Requests that are being answered.")
        self.refusals = self._counter("refusals", "Requests refused, by error code.", "code")
        self._refused_inputs = self._counter(
            "refused_inputs", "Inputs that could not be served, by error code.", "code"
        )
        # To Prometheus a counter that first appears as 1 has not risen, and no alert would see it.
        for code in ErrorCode:
            self.refusals.labels(code)

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """All series, in the format that an `Accept` header asks for; its media type."""
        return told(self.registry, accept)

    def answered(
        self, method: str, route: str, status: int, seconds: float, state: Mapping[str, Any]
    ) -> None:
        """A request ended; its `state` has its id, and that of its trace if it is traced."""
        self._requests.labels(method, route, str(status)).inc()
        ids = {name: state[name] for name in ("request_id", "trace_id") if name in state}
        self._request_seconds.labels(route, *self._labels_of(state)).observe(seconds, ids)

    def _labels_of(self, _state: Mapping[str, Any]) -> tuple[str, ...]:
        """The values of the `labels` of a request."""
        return ()

    def refused_input(self, code: str) -> None:
        """An input of a request cannot be served."""
        self._refused_inputs.labels(code).inc()

    def show(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Add a gauge that is read whenever it is asked for."""
        gauge = self.gauge(name, text, *labels)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        """Add a gauge, for who has something of his own to tell."""
        return Gauge(f"tuition_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"tuition_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"tuition_{name}", text, labels, buckets=buckets, registry=self.registry)
