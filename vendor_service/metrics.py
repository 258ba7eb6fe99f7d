"""The vendor's own Prometheus metrics, beside those of every server."""

import copy
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Self

from prometheus_client import Gauge

from shared.embeddings import Kind
from shared.http.metrics import SECONDS, SIZES, RequestMetrics
from shared.kinds import Usage

_KINDS: tuple[Kind, ...] = ("image", "text")
_RESTARTS = ("time", "killed", "crash")
_OUTCOMES = ("held", "replayed", "refused", "settled", "voided", "expired")


class Metrics(RequestMetrics):
    """The series of docs/incidents.md. Every method may be called from any thread.

    Where it is to tell models apart, `of_model` gives what one model reports to, whose series then have a
    label `model`.
    """

    def __init__(self, *, by_model: bool = False) -> None:
        self._model_labels = ("model",) if by_model else ()
        super().__init__(*self._model_labels)
        self._of: dict[str, str] = {}  # the labels that name the model
        self._shown: list[tuple[Gauge, dict[str, str]]] = []
        self._gauges: dict[str, Gauge] = {}
        kind = (*self._model_labels, "kind")
        self._queries = self._counter("queries", "Queries answered, paid before or now.", *kind)
        self._billing = self._counter("billing", "Decisions about money, by outcome.", "outcome")
        self._billed = self._counter(
            "billed_micros", "Sum of all charges, in micro-units of currency.", *self._model_labels
        )
        self._decode_seconds = self._histogram(
            "decode_seconds", "To check and prepare one input.", SECONDS, *kind
        )
        self._wait_seconds = self._histogram(
            "queue_wait_seconds",
            "From the queue to the first batch, for one caller's queries.",
            SECONDS,
            *kind,
        )
        self._batch_size = self._histogram("batch_size", "Queries in one batch.", SIZES, *kind)
        self._deaths = self._counter(
            "device_deaths", "Deaths of a device's worker, which was started anew.", *self._model_labels
        )
        self._restarts = self._counter(
            "preparation_restarts", "Ends of a process that prepares inputs.", *kind, "reason"
        )
        self._lookups = self._counter(
            "text_cache", "Texts looked for among those encoded before.", *self._model_labels, "outcome"
        )
        self._model_seconds = self._histogram(
            "model_seconds", "One forward pass of one batch.", SECONDS, *kind
        )
        # To Prometheus a counter that first appears as 1 has not risen, and no alert would see it.
        for outcome in _OUTCOMES:
            self._billing.labels(outcome)
        if not by_model:
            self._begin_restarts()

    def of_model(self, model: str) -> Self:
        """What one model reports to: the same series."""
        view = copy.copy(self)
        view._of = dict.fromkeys(self._model_labels, model)
        view._shown = []
        view._begin_restarts()
        return view

    def _labels_of(self, _state: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(getattr(_state.get("timing"), each, "") for each in self._model_labels)

    def _begin_restarts(self) -> None:
        for kind in _KINDS:
            for reason in _RESTARTS:
                self._restarts.labels(**self._of, kind=kind, reason=reason)

    def decided(self, outcome: str, times: int = 1) -> None:
        """The books came to a decision: `held`, `replayed`, `refused`, `settled`, `voided` or `expired`."""
        self._billing.labels(outcome).inc(times)

    def sold(self, usage: Usage, *, replayed: bool) -> None:
        """An answer goes out."""
        for kind, number in usage.counts.items():
            self._queries.labels(**self._of, kind=kind).inc(number)
        if not replayed:
            (self._billed.labels(**self._of) if self._of else self._billed).inc(usage.cost_micros)

    def decoded(self, kind: Kind, seconds: float) -> None:
        """An input was checked and prepared, or found to be bad."""
        self._decode_seconds.labels(**self._of, kind=kind).observe(seconds)

    def restarted(self, kind: Kind, reason: str) -> None:
        """A process that prepares inputs ended, and another takes its place."""
        self._restarts.labels(**self._of, kind=kind, reason=reason).inc()

    def waited(self, kind: Kind, seconds: float) -> None:
        """The first of one caller's queries leaves the queue."""
        self._wait_seconds.labels(**self._of, kind=kind).observe(seconds)

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """The model answered a batch."""
        self._batch_size.labels(**self._of, kind=kind).observe(size)
        self._model_seconds.labels(**self._of, kind=kind).observe(seconds)

    def died(self) -> None:
        """The worker of a device died."""
        (self._deaths.labels(**self._of) if self._of else self._deaths).inc()

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Texts were looked for in the cache."""
        self._lookups.labels(**self._of, outcome="hit").inc(hits)
        self._lookups.labels(**self._of, outcome="miss").inc(misses)

    def show_model(self, **facts: str) -> None:
        """Tell which model is served, as labels of a series that is always 1."""
        self._gauge_of("model_info", "Which model is served.", **facts).set(1)

    def show_measured(self, rates: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Tell what was measured of a model on this machine: queries a second, each with its labels."""
        text = "Queries a second by the measurement that chose how the model computes here."
        self._gauge_for("model_measured_rate", text, *self._of, "kind", "dtype", "way", "taken", "load")
        for labels, rate in rates:
            self._gauge_of("model_measured_rate", text, **self._of, **labels).set(rate)

    def show_queue(self, read: Callable[[Kind], int]) -> None:
        """Tell how many queries of each kind wait for the model."""
        for kind in _KINDS:
            gauge = self._gauge_of("queue_inputs", "Queries that wait for the model.", **self._of, kind=kind)
            gauge.set_function(partial(read, kind))

    def show_devices(self, read: Callable[[], int]) -> None:
        """Tell how many devices of the model have a worker that is alive."""
        self._gauge_of("devices_alive", "Devices whose worker is alive.", **self._of).set_function(read)

    def show_preparation(self, waiting: Callable[[Kind], int], living: Callable[[Kind], int]) -> None:
        """Tell how many inputs of each kind wait to be prepared, and how many processes do so."""
        for name, text, read in (
            ("preparation_inputs", "Inputs that wait to be decoded or tokenized.", waiting),
            ("preparation_processes", "Processes that decode or tokenize.", living),
        ):
            for kind in _KINDS:
                self._gauge_of(name, text, **self._of, kind=kind).set_function(partial(read, kind))

    def show_gpu_memory(self, readings: Mapping[tuple[str, str], Callable[[], float]]) -> None:
        """Tell how much of each CUDA device's memory is in a state, in bytes, by device and state."""
        gauge = self._gauge_for("gpu_memory_bytes", "Memory of the device.", "device", "state")
        for labels, read in readings.items():
            gauge.labels(*labels).set_function(read)

    def withdraw(self) -> None:
        """Show nothing more of a model that is no longer served; what was counted of it stays."""
        for gauge, labels in self._shown:
            # A gauge refers to itself, and would keep what it reads in memory until the collector comes.
            gauge.labels(**labels).set_function(float)
            gauge.remove(*labels.values())
        self._shown.clear()

    def _gauge_of(self, name: str, text: str, **labels: str) -> Gauge:
        """The gauge with these labels, which `withdraw` takes back."""
        gauge = self._gauge_for(name, text, *labels)
        if not labels:
            return gauge
        self._shown.append((gauge, labels))
        return gauge.labels(**labels)

    def _gauge_for(self, name: str, text: str, *labels: str) -> Gauge:
        if name not in self._gauges:
            self._gauges[name] = self.gauge(name, text, *labels)
        return self._gauges[name]
