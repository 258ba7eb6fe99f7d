"""`GET /metrics` and `Server-Timing`: what was asked of this vendor, and where its time went."""

import asyncio
import re
from contextlib import nullcontext
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import ErrorCode
from shared.http.metrics import RequestMetrics
from shared.http.middleware import RequestGate
from tests.vendor_service.local_vendor import LocalVendor, error_code, image_input
from vendor_service.http.application import new_application
from vendor_service.http.metrics import metrics_router

CAT = {"text": "a photo of a cat"}
INCIDENTS = Path(__file__).resolve().parents[3] / "docs" / "incidents.md"


class Scrape:
    """One reading of `GET /metrics`."""

    def __init__(self, vendor: LocalVendor) -> None:
        answer = vendor.http.get("/metrics")
        assert answer.status_code == 200
        self.families = {each.name: each for each in text_string_to_metric_families(answer.text)}
        self._samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._samples.get((f"tuition_{name}", *sorted(labels.items())), 0.0)


def test_every_step_of_a_request_is_counted(vendor: LocalVendor) -> None:
    key, before = vendor.key(), Scrape(vendor)
    once = {"idempotency-key": "counted"}
    for _ in range(2):
        assert vendor.embed(key, CAT, image_input(), {"image": "%"}, on_error="skip", headers=once).is_success
    after = Scrape(vendor)

    def more(name: str, **labels: str) -> float:
        return after(name, **labels) - before(name, **labels)

    assert more("requests_total", method="POST", route="/embed", status="200") == 2
    assert more("request_seconds_count", route="/embed") == 2
    assert [more("queries_total", kind=kind) for kind in ("image", "text")] == [2, 2]
    outcomes = ("held", "settled", "replayed", "refused", "voided", "expired")
    assert [more("billing_total", outcome=outcome) for outcome in outcomes] == [1, 1, 1, 0, 0, 0]
    assert more("billed_micros_total") == 120
    assert more("refused_inputs_total", code="invalid_image") == 2
    assert more("decode_seconds_count", kind="image") == 4
    for name in ("queue_wait_seconds_count", "batch_size_sum", "model_seconds_count"):
        assert more(name, kind="image") == 2
    assert after("queue_inputs", kind="image") == 0
    assert after("requests_in_flight") == 1


def test_what_is_alerted_on_is_told_before_it_happens(vendor: LocalVendor) -> None:
    families = Scrape(vendor).families
    for name, label, wanted in (
        ("refusals", "code", set(ErrorCode)),
        ("billing", "outcome", {"held", "replayed", "refused", "settled", "voided", "expired"}),
    ):
        assert {sample.labels[label] for sample in families[f"tuition_{name}"].samples} == wanted


def test_refusals_are_counted_by_code_and_invented_paths_and_methods_are_not_kept(
    vendor: LocalVendor,
) -> None:
    before = Scrape(vendor)
    assert error_code(vendor.embed(vendor.key(quota=0), CAT)) == "quota_exhausted"
    assert error_code(vendor.http.get("/a-path-of-my-own")) == "not_found"
    for method in ("PURGE", "MKCOL"):
        assert error_code(vendor.http.request(method, "/embed")) == "method_not_allowed"
    after = Scrape(vendor)
    for code in ("quota_exhausted", "not_found"):
        assert after("refusals_total", code=code) - before("refusals_total", code=code) == 1
    assert after("billing_total", outcome="refused") - before("billing_total", outcome="refused") == 1
    told = vendor.http.get("/metrics").text
    assert not [each for each in ("a-path-of-my-own", "PURGE", "MKCOL") if each in told]


# Told by a vendor that has a GPU, or a store for bulk jobs.
ELSEWHERE = {
    "tuition_gpu_memory_bytes",
    "tuition_bulk_jobs",
    "tuition_bulk_lines",
    "tuition_bulk_oldest_seconds",
}


def test_the_documents_name_every_series(vendor: LocalVendor) -> None:
    vendor.embed(vendor.key(), CAT)
    series = {
        name + ("_total" if family.type == "counter" else "")
        for name, family in Scrape(vendor).families.items()
        if name.startswith("tuition_") and not name.endswith("_created")
    }
    named = set(re.findall(r"`(tuition_\w+)`", INCIDENTS.read_text()))
    assert named - ELSEWHERE == series


def test_two_vendors_in_one_process_count_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with LocalVendor(tmp_path / "one") as one, LocalVendor(tmp_path / "two") as two:
        one.embed(one.key(), CAT)
        assert (Scrape(one)("queries_total", kind="text"), Scrape(two)("queries_total", kind="text")) == (
            1,
            0,
        )


def test_a_token_guards_the_metrics(tmp_path: Path) -> None:
    with LocalVendor(tmp_path, metrics_token="s3cret") as vendor:
        assert error_code(vendor.http.get("/metrics")) == "invalid_api_key"
        for wrong in ("Bearer s3cre", "Bearer é", ""):
            headers = httpx.Headers({"authorization": wrong}, encoding="utf-8")
            assert error_code(vendor.http.get("/metrics", headers=headers)) == "invalid_api_key"
        assert vendor.http.get("/metrics", headers={"authorization": "Bearer s3cret"}).is_success


@pytest.mark.parametrize(
    ("asker", "server", "headers", "status"),
    [
        ("127.0.0.1", "127.0.0.1", {}, 200),
        ("10.1.2.3", "10.1.2.4", {}, 200),
        ("fd00::1", "[fd00::2]", {}, 200),
        ("::ffff:10.1.2.3", "10.1.2.4", {}, 200),
        ("1.1.1.1", "1.1.1.1", {}, 200),  # the machine itself
        ("1.1.1.1", "1.1.1.2", {}, 401),
        ("2606:4700::1111", "[2606:4700::2]", {}, 401),
        ("::ffff:1.1.1.1", "1.1.1.2", {}, 401),
        ("nobody", "10.1.2.4", {}, 401),
        ("127.0.0.1", "127.0.0.1", {"x-forwarded-for": "10.1.2.3"}, 401),
        ("127.0.0.1", "127.0.0.1", {"x-real-ip": "10.1.2.3"}, 401),
        ("10.1.2.3", "10.1.2.4", {"via": "1.1 proxy"}, 401),
    ],
)
def test_without_a_token_metrics_are_for_who_is_near(
    asker: str, server: str, headers: dict[str, str], status: int
) -> None:
    app = new_application("x", "", lambda _: nullcontext())
    app.include_router(metrics_router(lambda _: (b"acme spent 5", "text/plain"), None))
    app.add_middleware(RequestGate, crash_message="", metrics=RequestMetrics())

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(asker, 1))
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{server}") as http:
            return await http.get("/metrics", headers=headers)

    answer = asyncio.run(ask())
    assert (answer.status_code, b"acme" in answer.content) == (status, status == 200)


def test_an_answer_says_where_its_time_went(vendor: LocalVendor) -> None:
    answer = vendor.embed(vendor.key(), CAT, image_input())
    steps = dict(part.split(";dur=") for part in answer.headers["server-timing"].split(", "))
    assert list(steps) == ["decode", "queue", "model", "books"]
    assert all(float(steps[name]) > 0 for name in ("decode", "model", "books"))
