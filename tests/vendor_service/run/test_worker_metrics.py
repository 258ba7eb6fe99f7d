"""What several workers counted, told by one of them: no sibling keeps it waiting, and no fault lasts."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from vendor_service.run.worker_metrics import Worker, WorkerMetrics


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of a path of at most a hundred letters, as sockets have."""
    with TemporaryDirectory() as short:
        yield Path(short)


def workers_of(text: bytes) -> list[str]:
    """The workers that told something."""
    return [number for number in "01" if f'worker="{number}"' in text.decode()]


def test_a_worker_that_could_not_count_once_tells_its_metrics_at_the_next_scrape(folder: Path) -> None:
    registries = [CollectorRegistry() for _ in range(2)]
    gauges = [Gauge("waiting", "Inputs.", registry=each) for each in registries]
    first, second = (WorkerMetrics(Worker(at, 2, folder), each) for at, each in enumerate(registries))

    def fail() -> float:
        raise RuntimeError("dictionary changed size during iteration")

    first.start()
    second.start()
    try:
        gauges[1].set_function(fail)
        assert workers_of(first.render()[0]) == ["0"]
        gauges[1].set_function(lambda: 1.0)
        assert workers_of(first.render()[0]) == ["0", "1"]
    finally:
        second.close()
        first.close()


def test_a_request_that_a_sibling_answered_is_an_exemplar_too(folder: Path) -> None:
    registries = [CollectorRegistry() for _ in range(2)]
    for number, each in enumerate(registries):
        Histogram("seconds", "Of requests.", registry=each).observe(0.2, {"request_id": f"req_{number}"})
    first, second = (WorkerMetrics(Worker(at, 2, folder), each) for at, each in enumerate(registries))
    second.start()
    try:
        told, media_type = first.render("application/openmetrics-text")
    finally:
        second.close()
    assert media_type.startswith("application/openmetrics-text")
    (family,) = text_string_to_metric_families(told.decode())  # type: ignore[no-untyped-call]
    found = [(each.labels["worker"], each.exemplar) for each in family.samples if each.exemplar is not None]
    assert [(worker, each.labels) for worker, each in found] == [
        ("0", {"request_id": "req_0"}),
        ("1", {"request_id": "req_1"}),
    ]


def test_a_sibling_that_takes_nobody_keeps_nobody_waiting(folder: Path) -> None:
    registry = CollectorRegistry()
    Gauge("waiting", "Inputs.", registry=registry)
    metrics = WorkerMetrics(Worker(0, 2, folder), registry)
    with ThreadPoolExecutor(1) as pool, ExitStack() as open_lines:
        sibling = open_lines.enter_context(socket.socket(socket.AF_UNIX))
        sibling.bind(str(folder / "1.sock"))
        sibling.listen(0)
        open_lines.enter_context(socket.socket(socket.AF_UNIX)).connect(str(folder / "1.sock"))
        assert workers_of(pool.submit(metrics.render).result(timeout=20)[0]) == ["0"]
