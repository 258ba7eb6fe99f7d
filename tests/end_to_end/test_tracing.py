"""One trace from a client's purchase to the vendor's books, sent to a real receiver."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import client.vendors.tracing
import vendor_service.run.tracing
from client.errors import UsageError
from client.options.vendor import VendorOptions
from client.progress import Display
from client.runs.connection import Connection
from client.vendors.query import Query
from tests.support.otlp import Collector
from tests.vendor_service.local_vendor import LocalVendor, ScriptedTexts, error_code, image_input
from vendor_service.errors import OperatorError

CAT = {"text": "a cat"}


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A receiver that the environment names."""
    with Collector() as listening:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", listening.url)
        yield listening


def test_a_purchase_is_one_trace_from_the_client_to_the_books(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries = [Query.text(f"text {number}") for number in range(40)]
    with LocalVendor(tmp_path) as vendor:
        monkeypatch.setenv("TUITION_API_KEY", vendor.key())
        here = Connection(
            VendorOptions(vendor=f"http://127.0.0.1:{vendor.port}", cache=tmp_path / "cache.db"),
            Display.of_nobody(),
        )
        with here.teacher(run_id="run", budget=None) as teacher:
            assert teacher.buy(queries).bought == 40
        metrics = vendor.http.get("/metrics", headers={"accept": "application/openmetrics-text"}).text
    (buy,) = collector.named("buy")
    batches, requests = collector.named("request batch"), collector.named("POST /embed")
    assert (buy.service, buy.attributes["tuition.queries"]) == ("tuition-client", "40")
    assert sorted(int(batch.attributes["tuition.queries"]) for batch in batches) == [8, 32]
    assert {batch.parent for batch in batches} == {buy.id}
    assert {request.parent for request in requests} == {batch.id for batch in batches}
    for request in requests:
        assert request.service == "tuition-vendor"
        assert request.attributes["http.response.status_code"] == "200"
        steps = sorted((span for span in collector.spans if span.parent == request.id), key=lambda s: s.began)
        assert [step.name for step in steps] == ["books", "decode", "queue", "model", "books"]
        for step in steps:
            assert request.began <= step.began <= step.ended <= request.ended
    assert len({span.trace for span in (buy, *batches, *requests)}) == 1
    assert f'trace_id="{buy.trace}"' in metrics


def test_a_refused_request_says_why_and_nothing_of_what_was_asked(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ScriptedTexts(monkeypatch)
    with LocalVendor(tmp_path) as vendor:
        key = vendor.key(quota=1)
        assert error_code(vendor.embed(key, CAT, image_input())) == "quota_exhausted"
        assert error_code(vendor.embed(key, {"text": "explode"})) == "internal_error"
        vendor.http.get("/readyz")
    refused, broken = collector.named("POST /embed")
    assert (refused.attributes["error.type"], refused.failed) == ("quota_exhausted", False)
    assert (broken.attributes["error.type"], broken.failed) == ("internal_error", True)
    assert {span.name for span in collector.spans} <= {"POST /embed", "decode", "books", "queue", "model"}
    told = str(collector.spans)
    assert key not in told
    assert "explode" not in told


@pytest.mark.parametrize(
    "environment", [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}]
)
def test_without_an_endpoint_there_are_no_traces(environment: dict[str, str]) -> None:
    assert vendor_service.run.tracing.find_traces(environment) is None
    assert client.vendors.tracing.find_traces(environment) is None


def test_without_the_libraries_an_endpoint_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    environment = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}
    with pytest.raises(OperatorError, match=r"install 'tuition\[tracing\]'"):
        vendor_service.run.tracing.find_traces(environment)
    with pytest.raises(UsageError, match=r"install 'tuition\[tracing\]'"):
        client.vendors.tracing.find_traces(environment)
