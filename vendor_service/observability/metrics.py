"""The vendor's own Prometheus metrics, beside those of every server."""

from collections.abc import Callable, Iterable
from functools import partial

import torch

from shared.embeddings import Kind, Usage
from shared.serving.metrics import SECONDS, SIZES, RequestMetrics

_KINDS: tuple[Kind, ...] = ("image", "text")
_RESTARTS = ("time", "killed", "crash")
_OUTCOMES = ("held", "replayed", "refused", "settled", "voided", "expired")


class Metrics(RequestMetrics):
    """The series of docs/operations.md. Every method may be called from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._queries = self._counter("queries", "Queries answered, paid before or now.", "kind")
        self._billing = self._counter("billing", "Decisions about money, by outcome.", "outcome")
        self._billed = self._counter("billed_micros", "Sum of all charges, in micro-units of currency.")
        self._decode_seconds = self._histogram(
            "decode_seconds", "To check and prepare one input.", SECONDS, "kind"
        )
        self._wait_seconds = self._histogram(
            "queue_wait_seconds",
            "From the queue to the first batch, for one caller's queries.",
            SECONDS,
            "kind",
        )
        self._batch_size = self._histogram("batch_size", "Queries in one batch.", SIZES, "kind")
        self._deaths = self._counter("device_deaths", "Deaths of a device's worker, which was started anew.")
        self._restarts = self._counter(
            "preparation_restarts", "Ends of a process that prepares inputs.", "kind", "reason"
        )
        self._lookups = self._counter("text_cache", "Texts looked for among those encoded before.", "outcome")
        self._model_seconds = self._histogram(
            "model_seconds", "One forward pass of one batch.", SECONDS, "kind"
        )
        # To Prometheus a counter that first appears as 1 has not risen, and no alert would see it.
        for outcome in _OUTCOMES:
            self._billing.labels(outcome)
        for kind in _KINDS:
            for reason in _RESTARTS:
                self._restarts.labels(kind, reason)

    def decided(self, outcome: str, times: int = 1) -> None:
        """The books came to a decision: `held`, `replayed`, `refused`, `settled`, `voided` or `expired`."""
        self._billing.labels(outcome).inc(times)

    def sold(self, usage: Usage, *, replayed: bool) -> None:
        """An answer goes out."""
        self._queries.labels("image").inc(usage.images)
        self._queries.labels("text").inc(usage.texts)
        if not replayed:
            self._billed.inc(usage.cost_micros)

    def decoded(self, kind: Kind, seconds: float) -> None:
        """An input was checked and prepared, or found to be bad."""
        self._decode_seconds.labels(kind).observe(seconds)

    def restarted(self, kind: Kind, reason: str) -> None:
        """A process that prepares inputs ended, and another takes its place."""
        self._restarts.labels(kind, reason).inc()

    def waited(self, kind: Kind, seconds: float) -> None:
        """The first of one caller's queries leaves the queue."""
        self._wait_seconds.labels(kind).observe(seconds)

    def ran(self, kind: Kind, size: int, seconds: float) -> None:
        """The model answered a batch."""
        self._batch_size.labels(kind).observe(size)
        self._model_seconds.labels(kind).observe(seconds)

    def died(self) -> None:
        """The worker of a device died."""
        self._deaths.inc()

    def looked_up(self, *, hits: int, misses: int) -> None:
        """Texts were looked for in the cache."""
        self._lookups.labels("hit").inc(hits)
        self._lookups.labels("miss").inc(misses)

    def show_model(self, **facts: str) -> None:
        """Tell which model is served, as labels of a series that is always 1."""
        self.gauge("model_info", "Which model is served.", *facts).labels(**facts).set(1)

    def show_queue(self, read: Callable[[Kind], int]) -> None:
        """Tell how many queries of each kind wait for the model."""
        gauge = self.gauge("queue_inputs", "Queries that wait for the model.", "kind")
        for kind in _KINDS:
            gauge.labels(kind).set_function(partial(read, kind))

    def show_preparation(self, waiting: Callable[[Kind], int], living: Callable[[Kind], int]) -> None:
        """Tell how many inputs of each kind wait to be prepared, and how many processes do so."""
        for name, text, read in (
            ("preparation_inputs", "Inputs that wait to be decoded or tokenized.", waiting),
            ("preparation_processes", "Processes that decode or tokenize.", living),
        ):
            gauge = self.gauge(name, text, "kind")
            for kind in _KINDS:
                gauge.labels(kind).set_function(partial(read, kind))

    def show_gpu_memory(self, devices: Iterable[torch.device]) -> None:
        """Tell how much of each CUDA device's memory this process holds, and how much there is."""
        gauge = self.gauge("gpu_memory_bytes", "Memory of the device.", "device", "state")
        for device in devices:
            total = torch.cuda.get_device_properties(device).total_memory
            gauge.labels(str(device), "allocated").set_function(partial(torch.cuda.memory_allocated, device))
            gauge.labels(str(device), "reserved").set_function(partial(torch.cuda.memory_reserved, device))
            gauge.labels(str(device), "total").set(total)
